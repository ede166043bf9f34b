// CUDA kernels of gate_and_pool; arguments as in csrc/cpu/gate_and_pool.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace pyreid::cuda {

template <class S>
void gate_and_pool(const S* x, const S* gate, int64_t rows, int64_t n, S* local, S* avg, S* largest, int64_t* index,
                   cudaStream_t stream);

template <class S>
void gate_and_pool_gradient(const S* dlocal, const S* davg, const S* dlargest, const S* x, const S* gate,
                            const int64_t* index, int64_t rows, int64_t n, S* dx, S* dgate, cudaStream_t stream);

}  // namespace pyreid::cuda
