// What both triplet operators do with the losses of the anchors.
#pragma once
#include <cstdint>

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"
#include "csrc/triplet.h"

namespace pyreid::cuda {

// Stands in the losses for an anchor without a positive or without a negative until they have been reduced; a loss is
// not negative. Losses that are not reduced are 0 there at once.
inline constexpr int kNoLoss = -1;

template <class T>
__device__ __forceinline__ T loss_of_none(Reduction reduction) {
  return reduction == Reduction::kNone ? T(0) : T(kNoLoss);
}

// One block: counts the anchors that have a loss, sums their losses, divides for the mean, and scales the slopes
// likewise. The count stays on the device. Sums are in double, in an order fixed by the block's size. Other blocks of
// the same launch may have written what is read.
template <int kThreads, class T>
__device__ __forceinline__ void reduce_losses(int64_t b, int64_t slope_count, Reduction reduction, T* losses, T* loss,
                                              T* slopes) {
  __shared__ double sum_scratch[kThreads / kWarpSize];
  __shared__ int count_scratch[kThreads / kWarpSize];
  double sum = 0;
  int count = 0;
  for (int64_t i = threadIdx.x; i < b; i += kThreads) {
    const T value = __ldcg(losses + i);
    if (value == T(kNoLoss)) {
      losses[i] = 0;
    } else {
      sum += static_cast<double>(value);
      ++count;
    }
  }
  sum = block_sum<kThreads>(sum, sum_scratch);
  count = block_sum<kThreads>(count, count_scratch);
  const bool divides = reduction == Reduction::kMean && count > 0;
  if (threadIdx.x == 0) *loss = static_cast<T>(divides ? sum / count : sum);
  if (!divides) return;
  const T scale = T(1) / static_cast<T>(count);
  for (int64_t i = threadIdx.x; i < slope_count; i += kThreads) slopes[i] = __ldcg(slopes + i) * scale;
}

template <class T, int kThreads>
__global__ void reduce_losses_kernel(int64_t b, int64_t slope_count, Reduction reduction, T* losses, T* loss,
                                     T* slopes) {
  reduce_losses<kThreads>(b, slope_count, reduction, losses, loss, slopes);
}

// As a launch of its own.
template <class T>
void launch_reduce_losses(int64_t b, int64_t slope_count, Reduction reduction, T* losses, T* loss, T* slopes,
                          cudaStream_t stream) {
  if (reduction == Reduction::kNone) return;
  constexpr int kThreads = 256;
  PYREID_LAUNCH((reduce_losses_kernel<T, kThreads>), 1, kThreads, 0, stream, b, slope_count, reduction, losses, loss,
                slopes);
}

}  // namespace pyreid::cuda
