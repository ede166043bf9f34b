// float16 and bfloat16 storage as float: kernels are written once for every storage type S with these two.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace pyreid::cuda {

__device__ __forceinline__ float to_compute(float x) { return x; }
__device__ __forceinline__ double to_compute(double x) { return x; }
__device__ __forceinline__ float to_compute(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_compute(__nv_bfloat16 x) { return __bfloat162float(x); }

// Rounds to nearest even.
template <class S>
__device__ __forceinline__ S to_storage(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half to_storage<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 to_storage<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <class S>
__device__ __forceinline__ S to_storage(double x) {
  return static_cast<S>(x);
}

}  // namespace pyreid::cuda
