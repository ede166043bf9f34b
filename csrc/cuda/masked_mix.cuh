// CUDA kernels of masked_mix; arguments as in csrc/cpu/masked_mix.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/masked_mix.h"

namespace pyreid::cuda {

template <class S, class T>
void masked_mix(const S* local, const S* x, const S* identity, const T* mask, MixShape shape, S* out,
                cudaStream_t stream);

template <class S, class T>
void masked_mix_gradient(const S* grad, const S* local, const S* x, const S* identity, const T* mask, MixShape shape,
                         S* dlocal, S* dx, T* partials, cudaStream_t stream);

template <class T>
void masked_mix_mask_gradient(const T* partials, MixShape shape, T* dmask, cudaStream_t stream);

}  // namespace pyreid::cuda
