// CUDA kernels of spatial_gate; arguments as in csrc/cpu/spatial_gate.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace pyreid::cuda {

template <class S, class T>
void spatial_gate(const S* x, const T* weight1, const T* weight2, int64_t samples, int64_t channels, int64_t height,
                  int64_t width, T slope, S* local, S* avg, S* max, int64_t* argmax, cudaStream_t stream);

template <class S, class T>
void spatial_gate_gradient(const S* dlocal, const S* davg, const S* dmax, const S* x, const T* weight1,
                           const T* weight2, const int64_t* argmax, int64_t samples, int64_t channels, int64_t height,
                           int64_t width, T slope, S* dx, T* dweights, cudaStream_t stream);

template <class T>
void spatial_gate_weight_gradient(const T* dweights, int64_t samples, int64_t channels, T* dweight1, T* dweight2,
                                  cudaStream_t stream);

}  // namespace pyreid::cuda
