#include "csrc/cpu/set_neighbors.h"

#include <algorithm>

#include "csrc/cpu/simd/set_neighbors.h"

namespace pyreid::cpu {
namespace {

constexpr int64_t kBlock = 1024;  // values, or columns' limits, that stay in the first-level cache

// Others come in the order of their indices, so an equal value goes behind those that are there.
template <class T>
void insert(const NeighborLists<T>& lists, int64_t item, T value, int64_t other) {
  T* values = lists.values + item * lists.k;
  int32_t* indices = lists.indices + item * lists.k;
  int64_t place = lists.k - 1;
  for (; place > 0 && values[place - 1] > value; --place) {
    values[place] = values[place - 1];
    indices[place] = indices[place - 1];
  }
  values[place] = value;
  indices[place] = static_cast<int32_t>(other);
}

}  // namespace

template <class T>
void keep_row_neighbors(const ProductStrip<T>& strip, const NeighborLists<T>& lists, const ParallelFor& parallel_for) {
  parallel_for(0, strip.rows, grain_for(strip.columns), [&](int64_t begin, int64_t end) {
    T values[kBlock];
    int32_t hits[kBlock];
    for (int64_t i = begin; i < end; ++i) {
      const T* limit = lists.values + i * lists.k + lists.k - 1;
      for (int64_t start = 0; start < strip.columns; start += kBlock) {
        const int64_t n = std::min(kBlock, strip.columns - start);
        T most = lists.farthest_value[i];
        const int64_t count =
            PYREID_SIMD(row_candidates, strip.products + i * strip.row_stride + start,
                        strip.offset ? strip.offset + start : nullptr, n, *limit, values, &most, hits);
        if (most > lists.farthest_value[i]) {
          lists.farthest_value[i] = most;
          lists.farthest[i] =
              static_cast<FarthestIndex<T>>(strip.first + start + (std::find(values, values + n, most) - values));
        }
        for (int64_t h = 0; h < count; ++h) {
          if (values[hits[h]] < *limit) insert(lists, i, values[hits[h]], strip.first + start + hits[h]);
        }
      }
    }
  });
}

template <class T>
void keep_column_neighbors(const ProductStrip<T>& strip, const NeighborLists<T>& lists,
                           const ParallelFor& parallel_for) {
  parallel_for(0, strip.columns, std::max(kBlock, grain_for(strip.rows)), [&](int64_t begin, int64_t end) {
    T limits[kBlock];
    int32_t hits[kBlock];
    for (int64_t start = begin; start < end; start += kBlock) {
      const int64_t n = std::min(kBlock, end - start);
      for (int64_t j = 0; j < n; ++j) limits[j] = lists.values[(start + j) * lists.k + lists.k - 1];
      for (int64_t i = 0; i < strip.rows; ++i) {
        const T* products = strip.products + i * strip.row_stride + start;
        const int64_t count =
            PYREID_SIMD(column_candidates, products, strip.offset[i], n, limits, lists.farthest_value + start,
                        lists.farthest + start, static_cast<FarthestIndex<T>>(strip.first + i), hits);
        for (int64_t h = 0; h < count; ++h) {
          const int64_t item = start + hits[h];
          insert(lists, item, strip.offset[i] - products[hits[h]], strip.first + i);
          limits[hits[h]] = lists.values[item * lists.k + lists.k - 1];
        }
      }
    }
  });
}

#define PYREID_INSTANTIATE(T)                                                                            \
  template void keep_row_neighbors(const ProductStrip<T>&, const NeighborLists<T>&, const ParallelFor&); \
  template void keep_column_neighbors(const ProductStrip<T>&, const NeighborLists<T>&, const ParallelFor&);

PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)

}  // namespace pyreid::cpu
