// CUDA kernel of row_hashes; arguments as in csrc/cpu/row_hashes.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace pyreid::cuda {

template <class Word>
void row_hashes(const Word* x, int64_t n, int64_t d, int64_t* hashes, cudaStream_t stream);

}  // namespace pyreid::cuda
