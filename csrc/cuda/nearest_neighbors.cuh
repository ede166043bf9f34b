// CUDA kernels of nearest_neighbors; arguments as in csrc/cpu/nearest_neighbors.h, device pointers. `kept` is sorted
// after each tile.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/nearest_neighbors.h"

namespace pyreid::cuda {

// The largest k: a row's neighbors lie in shared memory.
inline constexpr int64_t kMostNeighbors = 2048;

template <class T>
void keep_nearest(const NearestTile<T>& tile, int64_t k, Neighbor<T>* kept, cudaStream_t stream);

template <class T>
void nearest_distances(const NearestFeatures<T>& features, int64_t k, Metric metric, Neighbor<T>* kept, T* distances,
                       int64_t* indices, cudaStream_t stream);

template <class T>
void nearest_gradients(const NearestFeatures<T>& features, int64_t k, Metric metric, const T* grad, const T* distances,
                       const int64_t* indices, const int64_t* order, const int64_t* starts, T* query_grad,
                       T* gallery_grad, cudaStream_t stream);

}  // namespace pyreid::cuda
