#include "csrc/cpu/simd/set_neighbors.h"

#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// Appends the lanes of a comparison that are true, with `place` for the first lane.
template <class T>
inline int64_t append_hits(IntVec<T> is_hit, int64_t place, int64_t count, int32_t* hits) {
  if (sum_lanes<Int<T>>(is_hit) == 0) return count;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
    if (is_hit[lane]) hits[count++] = static_cast<int32_t>(place + lane);
  }
  return count;
}

template <class T>
int64_t row_candidates_impl(const T* products, const T* offset, int64_t n, T limit, T* values, T* most, int32_t* hits) {
  constexpr int64_t kStep = kLanes<T>;
  const Vec<T> limits = broadcast(limit);
  Vec<T> largest = broadcast(*most);
  int64_t count = 0, j = 0;
  for (; j + 4 * kStep <= n; j += 4 * kStep) {
    Vec<T> v[4];
    for (int s = 0; s < 4; ++s) {
      v[s] = load(products + j + s * kStep);
      if (offset) v[s] = load(offset + j + s * kStep) - v[s];
      store(values + j + s * kStep, v[s]);
      largest = v[s] > largest ? v[s] : largest;
    }
    const IntVec<T> any = (v[0] < limits) | (v[1] < limits) | (v[2] < limits) | (v[3] < limits);
    if (sum_lanes<Int<T>>(any) == 0) continue;  // nearly always
    for (int s = 0; s < 4; ++s) count = append_hits<T>(v[s] < limits, j + s * kStep, count, hits);
  }
  T largest_lane = max_lanes<T>(largest);
  for (; j < n; ++j) {
    const T v = offset ? offset[j] - products[j] : products[j];
    values[j] = v;
    if (v > largest_lane) largest_lane = v;
    if (v < limit) hits[count++] = static_cast<int32_t>(j);
  }
  *most = largest_lane;
  return count;
}

template <class T, class Index>
int64_t column_candidates_impl(const T* products, T offset, int64_t n, const T* limits, T* farthest_value,
                               Index* farthest, Index item, int32_t* hits) {
  constexpr int64_t kStep = kLanes<T>;
  const Vec<T> offsets = broadcast(offset);
  const IntVec<T> items = broadcast(item);
  int64_t count = 0, j = 0;
  for (; j + kStep <= n; j += kStep) {
    const Vec<T> v = offsets - load(products + j), most = load(farthest_value + j);
    const IntVec<T> is_farthest = v > most;
    if (sum_lanes<Index>(is_farthest) != 0) {
      store(farthest_value + j, is_farthest ? v : most);
      store(farthest + j, is_farthest ? items : load(farthest + j));
    }
    count = append_hits<T>(v < load(limits + j), j, count, hits);
  }
  for (; j < n; ++j) {
    const T v = offset - products[j];
    if (v > farthest_value[j]) {
      farthest_value[j] = v;
      farthest[j] = item;
    }
    if (v < limits[j]) hits[count++] = static_cast<int32_t>(j);
  }
  return count;
}

}  // namespace

#define PYREID_DEFINE_SET_NEIGHBORS(T, Index)                                                                         \
  int64_t row_candidates(const T* products, const T* offset, int64_t n, T limit, T* values, T* most, int32_t* hits) { \
    return row_candidates_impl(products, offset, n, limit, values, most, hits);                                       \
  }                                                                                                                   \
  int64_t column_candidates(const T* products, T offset, int64_t n, const T* limits, T* farthest_value,               \
                            Index* farthest, Index item, int32_t* hits) {                                             \
    return column_candidates_impl(products, offset, n, limits, farthest_value, farthest, item, hits);                 \
  }

PYREID_DEFINE_SET_NEIGHBORS(float, int32_t)
PYREID_DEFINE_SET_NEIGHBORS(double, int64_t)

}  // namespace pyreid::cpu::PYREID_ISA
