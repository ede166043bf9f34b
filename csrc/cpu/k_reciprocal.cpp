#include "csrc/cpu/k_reciprocal.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>

#include "csrc/cpu/simd/k_reciprocal.h"
#include "csrc/cpu/simd/rows.h"

namespace pyreid::cpu {
namespace {

constexpr int64_t kRowsPerBlock = 256;  // whose results grow in one buffer

// Bodies of a parallel-for must not throw, but they need memory.
class MemoryGuard {
 public:
  template <class Body>
  void run(Body body) {
    try {
      body();
    } catch (const std::bad_alloc&) {
      failed_ = true;
    }
  }
  void check() const {
    if (failed_) throw std::bad_alloc();
  }

 private:
  std::atomic<bool> failed_ = false;
};

// Marks of the current row; to forget them all is one addition.
class Marks {
 public:
  explicit Marks(int64_t items) : row_of_(static_cast<size_t>(items), -1) {}
  void next_row() { ++row_; }
  bool has(int32_t item) const { return row_of_[static_cast<size_t>(item)] == row_; }
  // Whether the item was not marked before.
  bool add(int32_t item) {
    const bool is_new = !has(item);
    row_of_[static_cast<size_t>(item)] = row_;
    return is_new;
  }

 private:
  std::vector<int32_t> row_of_;
  int32_t row_ = 0;
};

// Rows made in blocks, by threads, and then put behind one another.
template <class T, bool kWeighted, class MakeRow, class MakeScratch>
SparseBuffer<T> make_rows(int64_t rows, const ParallelFor& parallel_for, MakeScratch make_scratch, MakeRow make_row) {
  const int64_t blocks = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
  std::vector<std::vector<int32_t>> columns(static_cast<size_t>(blocks));
  std::vector<std::vector<T>> weights(static_cast<size_t>(blocks));
  SparseBuffer<T> out;
  out.starts.assign(static_cast<size_t>(rows + 1), 0);
  MemoryGuard memory;
  parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    memory.run([&] {
      auto scratch = make_scratch();
      for (int64_t b = begin; b < end; ++b) {
        auto& block_columns = columns[static_cast<size_t>(b)];
        auto& block_weights = weights[static_cast<size_t>(b)];
        for (int64_t i = b * kRowsPerBlock; i < std::min(rows, (b + 1) * kRowsPerBlock); ++i) {
          make_row(scratch, i, block_columns, block_weights);
          out.starts[static_cast<size_t>(i + 1)] = static_cast<int64_t>(block_columns.size());
        }
      }
    });
  });
  memory.check();
  for (int64_t i = 1; i <= rows; ++i) {  // sizes so far count from the start of their block
    const int64_t block_start = (i - 1) / kRowsPerBlock * kRowsPerBlock;
    out.starts[static_cast<size_t>(i)] += out.starts[static_cast<size_t>(block_start)];
  }
  out.columns.reserve(static_cast<size_t>(out.starts.back()));
  if (kWeighted) out.weights.reserve(static_cast<size_t>(out.starts.back()));
  for (size_t b = 0; b < columns.size(); ++b) {
    out.columns.insert(out.columns.end(), columns[b].begin(), columns[b].end());
    std::vector<int32_t>().swap(columns[b]);
    out.weights.insert(out.weights.end(), weights[b].begin(), weights[b].end());
    std::vector<T>().swap(weights[b]);
  }
  return out;
}

bool contains(const int32_t* list, int64_t n, int32_t item) {
  bool found = false;  // without an early exit the loop becomes vector code
  for (int64_t a = 0; a < n; ++a) found |= list[a] == item;
  return found;
}

// Those of the first k neighbors of an item that have it among their own first k, in the order of the neighbors.
int64_t reciprocal_neighbors(const Neighbors& neighbors, int64_t k, int64_t item, int32_t* out) {
  int64_t count = 0;
  const int32_t* list = neighbors.indices + item * neighbors.k;
  for (int64_t a = 0; a < k; ++a) {
    if (contains(neighbors.indices + list[a] * neighbors.k, k, static_cast<int32_t>(item))) out[count++] = list[a];
  }
  return count;
}

}  // namespace

SparseBuffer<float> reciprocal_sets(const Neighbors& neighbors, int64_t forward, int64_t half,
                                    const ParallelFor& parallel_for) {
  std::vector<int32_t> half_sets(static_cast<size_t>(neighbors.items * half));
  std::vector<int64_t> half_sizes(static_cast<size_t>(neighbors.items));
  parallel_for(0, neighbors.items, grain_for(half * half), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      half_sizes[static_cast<size_t>(i)] = reciprocal_neighbors(neighbors, half, i, half_sets.data() + i * half);
    }
  });
  struct Scratch {
    Marks own, all;
    std::vector<int32_t> set;
  };
  const auto make_scratch = [&] {
    return Scratch{Marks(neighbors.items), Marks(neighbors.items), std::vector<int32_t>(static_cast<size_t>(forward))};
  };
  return make_rows<float, false>(neighbors.items, parallel_for, make_scratch,
                                 [&](Scratch& scratch, int64_t i, std::vector<int32_t>& columns, std::vector<float>&) {
                                   const auto start = static_cast<std::ptrdiff_t>(columns.size());
                                   const int64_t own_size =
                                       reciprocal_neighbors(neighbors, forward, i, scratch.set.data());
                                   scratch.own.next_row();
                                   scratch.all.next_row();
                                   for (int64_t a = 0; a < own_size; ++a) {
                                     scratch.own.add(scratch.set[static_cast<size_t>(a)]);
                                     scratch.all.add(scratch.set[static_cast<size_t>(a)]);
                                     columns.push_back(scratch.set[static_cast<size_t>(a)]);
                                   }
                                   for (int64_t a = 0; a < own_size; ++a) {
                                     const int64_t candidate = scratch.set[static_cast<size_t>(a)];
                                     const int32_t* theirs = half_sets.data() + candidate * half;
                                     const int64_t size = half_sizes[static_cast<size_t>(candidate)];
                                     int64_t common = 0;
                                     for (int64_t b = 0; b < size; ++b) common += scratch.own.has(theirs[b]);
                                     if (3 * common <= 2 * size) continue;
                                     for (int64_t b = 0; b < size; ++b) {
                                       if (scratch.all.add(theirs[b])) columns.push_back(theirs[b]);
                                     }
                                   }
                                   std::sort(columns.begin() + start, columns.end());
                                 });
}

template <class T>
void pair_distances(const T* x, int64_t d, const SparseRows<T>& pairs, T* distances, const ParallelFor& parallel_for) {
  const int64_t mean_size = pairs.starts[pairs.rows] / std::max<int64_t>(1, pairs.rows);
  parallel_for(0, pairs.rows, grain_for(d * std::max<int64_t>(1, mean_size)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t e = pairs.starts[i]; e < pairs.starts[i + 1]; ++e) {
        distances[e] = PYREID_SIMD(squared_distance, x + i * d, x + pairs.columns[e] * d, d);
      }
    }
  });
}

template <class T>
void reciprocal_weights(const SparseRows<T>& distances, T* weights, const ParallelFor& parallel_for) {
  parallel_for(0, distances.rows, kRowsPerBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = distances.starts[i], last = distances.starts[i + 1];
      if (first == last) continue;
      // As a rule the smallest is the item's distance to itself, 0. Where it is not, the largest weight must not
      // vanish.
      const T least = *std::min_element(distances.weights + first, distances.weights + last);
      double sum = 0;
      for (int64_t e = first; e < last; ++e) {
        weights[e] = std::exp(least - distances.weights[e]);
        sum += static_cast<double>(weights[e]);
      }
      for (int64_t e = first; e < last; ++e) weights[e] /= static_cast<T>(sum);
    }
  });
}

template <class T>
SparseBuffer<T> mean_rows(const SparseRows<T>& rows, const Neighbors& neighbors, int64_t k2,
                          const ParallelFor& parallel_for) {
  struct Scratch {
    Marks seen;
    std::vector<T> sums;
  };
  const auto make_scratch = [&] { return Scratch{Marks(rows.rows), std::vector<T>(static_cast<size_t>(rows.rows))}; };
  return make_rows<T, true>(rows.rows, parallel_for, make_scratch,
                            [&](Scratch& scratch, int64_t i, std::vector<int32_t>& columns, std::vector<T>& weights) {
                              const auto start = static_cast<std::ptrdiff_t>(columns.size());
                              scratch.seen.next_row();
                              for (int64_t a = 0; a < k2; ++a) {
                                const int64_t row = neighbors.indices[i * neighbors.k + a];
                                for (int64_t e = rows.starts[row]; e < rows.starts[row + 1]; ++e) {
                                  T& sum = scratch.sums[static_cast<size_t>(rows.columns[e])];
                                  if (scratch.seen.add(rows.columns[e])) {
                                    columns.push_back(rows.columns[e]);
                                    sum = 0;
                                  }
                                  sum += rows.weights[e];
                                }
                              }
                              std::sort(columns.begin() + start, columns.end());
                              for (auto column = columns.begin() + start; column != columns.end(); ++column) {
                                weights.push_back(scratch.sums[static_cast<size_t>(*column)] / static_cast<T>(k2));
                              }
                            });
}

template <class T>
void by_columns(const SparseRows<T>& rows, int64_t first, int64_t* starts, int32_t* items, T* weights) {
  std::fill(starts, starts + rows.rows + 1, int64_t{0});
  const int64_t begin = rows.starts[first], end = rows.starts[rows.rows];
  for (int64_t e = begin; e < end; ++e) ++starts[rows.columns[e] + 1];
  for (int64_t c = 0; c < rows.rows; ++c) starts[c + 1] += starts[c];
  std::vector<int64_t> next(starts, starts + rows.rows);
  for (int64_t i = first; i < rows.rows; ++i) {
    for (int64_t e = rows.starts[i]; e < rows.starts[i + 1]; ++e) {
      const int64_t place = next[static_cast<size_t>(rows.columns[e])]++;
      items[place] = static_cast<int32_t>(i - first);
      weights[place] = rows.weights[e];
    }
  }
}

template <class T>
void re_rank_strip(const ReRankedStrip<T>& strip, const ParallelFor& parallel_for) {
  MemoryGuard memory;
  parallel_for(0, strip.rows, 1, [&](int64_t begin, int64_t end) {
    memory.run([&] {
      std::vector<T> overlap(static_cast<size_t>(strip.columns), T(0));
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t e = strip.queries.starts[i]; e < strip.queries.starts[i + 1]; ++e) {
          const int32_t column = strip.queries.columns[e];
          const T weight = strip.queries.weights[e];
          for (int64_t g = strip.gallery.starts[column]; g < strip.gallery.starts[column + 1]; ++g) {
            overlap[static_cast<size_t>(strip.gallery.columns[g])] += std::min(weight, strip.gallery.weights[g]);
          }
        }
        T* values = strip.values + i * strip.row_stride;
        if (strip.offset) {
          const T limit = strip.limits[i], divisor = strip.divisors[i] > T(0) ? strip.divisors[i] : T(1);
          PYREID_SIMD(scale_distances, values, strip.offset, strip.columns, strip.query_norms[i], limit, divisor,
                      strip.squared);
        }
        PYREID_SIMD(blend_jaccard, values, overlap.data(), strip.columns, static_cast<T>(strip.lambda),
                    static_cast<T>(1 - strip.lambda), strip.clip);
      }
    });
  });
  memory.check();
}

#define PYREID_INSTANTIATE(T)                                                                              \
  template void pair_distances(const T*, int64_t, const SparseRows<T>&, T*, const ParallelFor&);           \
  template void reciprocal_weights(const SparseRows<T>&, T*, const ParallelFor&);                          \
  template SparseBuffer<T> mean_rows(const SparseRows<T>&, const Neighbors&, int64_t, const ParallelFor&); \
  template void by_columns(const SparseRows<T>&, int64_t, int64_t*, int32_t*, T*);                         \
  template void re_rank_strip(const ReRankedStrip<T>&, const ParallelFor&);

PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)

}  // namespace pyreid::cpu
