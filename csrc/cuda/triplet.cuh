// What both triplet operators do with partial distances and with the losses of the anchors.
#pragma once
#include <cstdint>

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"
#include "csrc/triplet.h"

namespace pyreid::cuda {

// Stands in the losses for an anchor without a positive or without a negative until finish_losses_kernel has run; a
// loss is not negative.
inline constexpr int kNoLoss = -1;

// Squared distance of pair (i, j) from its partial sums [splits, B, B].
template <class T>
__device__ __forceinline__ T sum_splits(const T* squared, int64_t b, int64_t splits, int64_t i, int64_t j) {
  T sum = squared[i * b + j];
  for (int64_t split = 1; split < splits; ++split) sum += squared[(split * b + i) * b + j];
  return sum;
}

// One block: counts the anchors that have a loss, sums their losses, divides for the mean, and scales the slopes
// likewise. The count stays on the device. Sums are in double, in an order fixed by the block's size.
template <class T, int kThreads>
__global__ void finish_losses_kernel(int64_t b, int64_t slope_count, Reduction reduction, T* __restrict__ losses,
                                     T* loss, T* __restrict__ slopes) {
  __shared__ double sum_scratch[kThreads / kWarpSize];
  __shared__ int count_scratch[kThreads / kWarpSize];
  double sum = 0;
  int count = 0;
  for (int64_t i = threadIdx.x; i < b; i += kThreads) {
    if (losses[i] == T(kNoLoss)) {
      losses[i] = 0;
    } else {
      sum += static_cast<double>(losses[i]);
      ++count;
    }
  }
  if (reduction == Reduction::kNone) return;
  sum = block_sum<kThreads>(sum, sum_scratch);
  count = block_sum<kThreads>(count, count_scratch);
  const bool divides = reduction == Reduction::kMean && count > 0;
  if (threadIdx.x == 0) *loss = static_cast<T>(divides ? sum / count : sum);
  if (!divides) return;
  const T scale = T(1) / static_cast<T>(count);
  for (int64_t i = threadIdx.x; i < slope_count; i += kThreads) slopes[i] *= scale;
}

template <class T>
void finish_losses(int64_t b, int64_t slope_count, Reduction reduction, T* losses, T* loss, T* slopes,
                   cudaStream_t stream) {
  constexpr int kThreads = 256;
  PYREID_LAUNCH((finish_losses_kernel<T, kThreads>), 1, kThreads, 0, stream, b, slope_count, reduction, losses, loss,
                slopes);
}

}  // namespace pyreid::cuda
