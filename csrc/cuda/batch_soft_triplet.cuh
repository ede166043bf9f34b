// CUDA kernels of batch_soft_triplet; arguments as in csrc/cpu/batch_soft_triplet.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/triplet.h"

namespace pyreid::cuda {

template <class T>
void batch_soft_triplet(const T* squared,  // [splits, B, B], partial sums
                        const int64_t* labels, int64_t b, int64_t splits, Margin margin, Reduction reduction, T* losses,
                        T* loss, T* weights, T* slopes, cudaStream_t stream);

template <class T>
void batch_soft_triplet_backward(const T* grad, bool per_anchor, const T* x, const T* weights, const T* slopes,
                                 int64_t b, int64_t d, T* dx, cudaStream_t stream);

}  // namespace pyreid::cuda
