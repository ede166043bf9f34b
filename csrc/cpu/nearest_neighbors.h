// CPU kernels of nearest_neighbors. The matrix products are the caller's, a tile at a time.
#pragma once
#include <cstdint>

#include "csrc/cpu/parallel.h"
#include "csrc/nearest_neighbors.h"

namespace pyreid::cpu {

// Folds a tile into the k nearest of each query. The tiles of a strip come in the order of the gallery; before the
// first, `kept` need not be set. Each row of it holds min(k, items seen) neighbors.
template <class T>
void keep_nearest(const NearestTile<T>& tile, int64_t k,
                  Neighbor<T>* kept,  // [rows, k]
                  const ParallelFor& parallel_for);

// Distances and indices of the neighbors kept, sorted by distance; ties by the value that ranked them, then by index.
// Sorts `kept`.
template <class T>
void nearest_distances(const NearestFeatures<T>& features, int64_t k, Metric metric,
                       Neighbor<T>* kept,  // [rows, k]
                       T* distances,       // [rows, k]
                       int64_t* indices,   // [rows, k]
                       const ParallelFor& parallel_for);

// The gradients of the distances found. `order` are the pairs [0, rows k) sorted by gallery index, then pair; those of
// gallery row g are order[starts[g]] to order[starts[g + 1] - 1].
template <class T>
void nearest_gradients(const NearestFeatures<T>& features, int64_t k, Metric metric,
                       const T* grad,           // [rows, k]
                       const T* distances,      // [rows, k]
                       const int64_t* indices,  // [rows, k]
                       const int64_t* order,    // [rows k]
                       const int64_t* starts,   // [columns + 1]
                       T* query_grad,           // [rows, d]
                       T* gallery_grad,         // [columns, d]
                       const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
