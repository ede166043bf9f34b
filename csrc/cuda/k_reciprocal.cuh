// CUDA kernels of k-reciprocal re-ranking; device pointers. What only sorts and gathers between them is torch's
// (pyreid/ops/k_reciprocal_cuda.py), so the stages are cut in another way than in csrc/cpu/k_reciprocal.h.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <limits>

#include "csrc/k_reciprocal.h"

namespace pyreid::cuda {

// In place of an item that is not in a set. It sorts behind all that are.
inline constexpr int32_t kNoItem = std::numeric_limits<int32_t>::max();

// out [items, k]: those of the first k neighbors of each item that have it among their own first k, in their places;
// kNoItem in the others.
void reciprocal_neighbors(const Neighbors& neighbors, int64_t k, int32_t* out, cudaStream_t stream);

// For each a of own [items, forward], the size of its row of half [items, length] if more than two thirds of that lie
// in the same row of own, else 0. Rows ascend, kNoItem last.
void reciprocal_expansions(const int32_t* own, const int32_t* half, int64_t items, int64_t forward, int64_t length,
                           int32_t* sizes, cudaStream_t stream);

// Squared distances between the rows i and j of x [pairs.rows, d] for all entries (i, j), summed from the differences.
template <class T>
void pair_distances(const T* x, int64_t d, const SparseRows<T>& pairs, T* distances, cudaStream_t stream);

// exp(-distance) of each entry, divided by the sum of its row. The sum is taken in float64.
template <class T>
void reciprocal_weights(const SparseRows<T>& distances, T* weights, cudaStream_t stream);

// The sums of values[starts[r]] to values[starts[r + 1] - 1], added in this order and divided by `divisor`.
template <class T>
void run_means(const T* values, const int64_t* starts, int64_t runs, T divisor, T* means, cudaStream_t stream);

// (1 - lambda) (1 - m / (2 - m)) + lambda d, where m is the sum of the smaller weights of query and gallery item.
// overlaps [blocks, columns] is scratch; it is what the number of blocks that run at a time costs.
template <class T>
void re_rank_strip(const ReRankedStrip<T>& strip, T* overlaps, int64_t blocks, cudaStream_t stream);

}  // namespace pyreid::cuda
