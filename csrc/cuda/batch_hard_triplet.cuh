// CUDA kernels of batch_hard_triplet; arguments as in csrc/cpu/batch_hard_triplet.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/triplet.h"

namespace pyreid::cuda {

template <class T>
void batch_hard_triplet(const T* squared,  // [splits, B, B], partial sums
                        const int64_t* labels, int64_t b, int64_t splits, Margin margin, Reduction reduction, T* losses,
                        T* loss, int32_t* pairs, T* slopes, cudaStream_t stream);

template <class T>
void batch_hard_triplet_backward(const T* grad, bool per_anchor, const T* x, const int32_t* pairs, const T* slopes,
                                 int64_t b, int64_t d, T* dx, cudaStream_t stream);

}  // namespace pyreid::cuda
