// CPU kernels of k-reciprocal re-ranking (Zhong et al., CVPR 2017), on sparse matrices of one row for each item of the
// joint set of query and gallery.
#pragma once
#include <cstdint>
#include <vector>

#include "csrc/cpu/parallel.h"
#include "csrc/k_reciprocal.h"

namespace pyreid::cpu {

using pyreid::Neighbors;
using pyreid::ReRankedStrip;
using pyreid::SparseRows;

template <class T>
struct SparseBuffer {
  std::vector<int64_t> starts;
  std::vector<int32_t> columns;
  std::vector<T> weights;
};

// For each item its reciprocal neighbors, those of its first `forward` neighbors that have it among their own first
// `forward`; and to these the sets of the same kind, with `half` in place of `forward`, of each of them more than two
// thirds of which lie in the item's own set. Without weights.
SparseBuffer<float> reciprocal_sets(const Neighbors& neighbors, int64_t forward, int64_t half,
                                    const ParallelFor& parallel_for);

// Squared distances between the rows i and j of x for all entries (i, j), summed from the differences.
template <class T>
void pair_distances(const T* x, int64_t d, const SparseRows<T>& pairs, T* distances, const ParallelFor& parallel_for);

// exp(-distance) of each entry, divided by the sum of its row. The sum is taken in float64.
template <class T>
void reciprocal_weights(const SparseRows<T>& distances, T* weights, const ParallelFor& parallel_for);

// Row i of the result is the mean of the rows of the first k2 neighbors of i, added up in their order.
template <class T>
SparseBuffer<T> mean_rows(const SparseRows<T>& rows, const Neighbors& neighbors, int64_t k2,
                          const ParallelFor& parallel_for);

// The rows from `first` on, by columns: `starts` [rows.rows + 1], the rows' numbers less `first`, ascending, and the
// weights, which have a place for each entry of these rows.
template <class T>
void by_columns(const SparseRows<T>& rows, int64_t first, int64_t* starts, int32_t* items, T* weights);

// (1 - lambda) (1 - m / (2 - m)) + lambda d, where m is the sum of the smaller weights of query and gallery item.
template <class T>
void re_rank_strip(const ReRankedStrip<T>& strip, const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
