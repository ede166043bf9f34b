// CUDA kernels of batch_hard_triplet; arguments as in csrc/cpu/batch_hard_triplet.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/cuda/small_batch.cuh"
#include "csrc/triplet.h"

namespace pyreid::cuda {

// Whether small batches run in thread-block clusters on the current device.
template <class T>
bool hard_triplet_clusters();

// Elements of T that the forward needs besides its results: partial sums of small batches, norms of large ones.
int64_t hard_triplet_scratch(int64_t b, int64_t d, bool clusters);

template <class T>
void batch_hard_triplet(const T* x,         // [B, D]
                        const T* products,  // [B, B], inner products of the rows, for B > kSmallBatch
                        const int64_t* labels, int64_t b, int64_t d, bool clusters, Margin margin, Reduction reduction,
                        T* scratch, T* losses, T* loss, int32_t* pairs, T* slopes, cudaStream_t stream);

template <class T>
void batch_hard_triplet_backward(const T* grad, bool per_anchor, const T* x, const int32_t* pairs, const T* slopes,
                                 int64_t b, int64_t d, T* dx, cudaStream_t stream);

}  // namespace pyreid::cuda
