// CUDA kernels of gem_pool; arguments as in csrc/cpu/gem_pool.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/gem_pool.h"

namespace pyreid::cuda {

template <class S, class T>
void gem_pool(const S* x, int64_t samples, int64_t channels, int64_t n, bool channels_last, GemExponent<T> p, T eps,
              T* pooled, T* largest, T* factor, T* slope, cudaStream_t stream);

template <class S, class T>
void gem_pool_gradient(const T* grad, const S* x, const T* largest, const T* factor, int64_t samples, int64_t channels,
                       int64_t n, bool channels_last, GemExponent<T> p, T eps, S* dx, cudaStream_t stream);

template <class T>
void gem_pool_exponent_gradient(const T* grad, const T* slope, int64_t samples, int64_t channels, double* by_channel,
                                int64_t count, T* dp, cudaStream_t stream);

}  // namespace pyreid::cuda
