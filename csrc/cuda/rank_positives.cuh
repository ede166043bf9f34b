// CUDA kernel of rank_positives; arguments as in csrc/cpu/rank_positives.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/rank_positives.h"

namespace pyreid::cuda {

template <class T>
void rank_positives(const RankTask<T>& task, int64_t* ranks, int64_t* nans, cudaStream_t stream);

}  // namespace pyreid::cuda
