// CUDA kernels of batch_soft_triplet; arguments as in csrc/cpu/batch_soft_triplet.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/cuda/small_batch.cuh"
#include "csrc/triplet.h"

namespace pyreid::cuda {

// Whether small batches run in thread-block clusters on the current device.
template <class T>
bool soft_triplet_clusters();

// Elements of T that the forward needs besides its results, for partial sums.
int64_t soft_triplet_scratch(int64_t b, int64_t d, bool clusters);

template <class T>
void batch_soft_triplet(const T* x,  // [B, D]
                        const int64_t* labels, int64_t b, int64_t d, bool clusters, Margin margin, Reduction reduction,
                        T* scratch, T* losses, T* loss, T* weights, T* slopes, cudaStream_t stream);

template <class T>
void batch_soft_triplet_backward(const T* grad, bool per_anchor, const T* x, const T* weights, const T* slopes,
                                 int64_t b, int64_t d, T* dx, cudaStream_t stream);

}  // namespace pyreid::cuda
