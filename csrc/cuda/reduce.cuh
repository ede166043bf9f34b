// Sums over a warp and over a block, in an order that is fixed by the block's size.
#pragma once

namespace pyreid::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;

// Every lane gets the sum.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullMask, value, offset);
  return value;
}

template <class T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kFullMask, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

// Every thread of a one-dimensional block of kThreads gets the sum. `scratch` holds kThreads / 32 values of shared
// memory; the barriers inside also order earlier shared-memory accesses.
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
  static_assert(kThreads % kWarpSize == 0, "whole warps only");
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  T total = scratch[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / kWarpSize; ++warp) total += scratch[warp];
  return total;
}

// The same for the largest value; NaN is passed over where it comes second.
template <int kThreads, class T>
__device__ __forceinline__ T block_max(T value, T* scratch) {
  static_assert(kThreads % kWarpSize == 0, "whole warps only");
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  T largest = scratch[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / kWarpSize; ++warp) {
    largest = scratch[warp] > largest ? scratch[warp] : largest;
  }
  return largest;
}

}  // namespace pyreid::cuda
