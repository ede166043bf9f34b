// A hash of every row, equal for equal rows. A warp per row: each lane hashes every 32nd element, and lane 0 chains the
// lanes' hashes in their order, so the result depends on the row alone. Reads N D elements once, writes N hashes.
#include "csrc/cuda/row_hashes.cuh"

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"
#include "csrc/row_hashes.h"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

template <class Word>
__global__ void row_hashes_kernel(const Word* __restrict__ x, int64_t n, int64_t d, int64_t* __restrict__ hashes) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / kWarpSize; i < n; i += stride) {
    unsigned long long hash = lane + 1;
    for (int64_t k = lane; k < d; k += kWarpSize) hash = hash_step(hash, hashed_word(x[i * d + k]));
    unsigned long long row = 0;
    for (int other = 0; other < kWarpSize; ++other) row = hash_step(row, __shfl_sync(kFullMask, hash, other));
    if (lane == 0) hashes[i] = static_cast<int64_t>(row);
  }
}

}  // namespace

template <class Word>
void row_hashes(const Word* x, int64_t n, int64_t d, int64_t* hashes, cudaStream_t stream) {
  if (n == 0) return;
  PYREID_LAUNCH((row_hashes_kernel<Word>), grid_for(n, kWarps), kThreads, 0, stream, x, n, d, hashes);
}

template void row_hashes(const uint16_t*, int64_t, int64_t, int64_t*, cudaStream_t);
template void row_hashes(const uint32_t*, int64_t, int64_t, int64_t*, cudaStream_t);
template void row_hashes(const uint64_t*, int64_t, int64_t, int64_t*, cudaStream_t);

}  // namespace pyreid::cuda
