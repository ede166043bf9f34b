// Stands in for the toolkit's header of this name: float16 as a storage type with its conversions.
#pragma once
#include "cpp_tests/shim/half.h"
#include "cpp_tests/shim/vector_types.h"

struct alignas(2) __half {
  unsigned short bits;
  __half() = default;
  __half(float x) : bits(pyreid::shim::half_from_float(x)) {}
  __half(int x) : __half(static_cast<double>(x)) {}
  __half(double x) : bits(pyreid::shim::half_from_float(pyreid::shim::float_to_odd(x))) {}
  operator float() const { return pyreid::shim::float_from_half(bits); }
  // The device would round every step: kernels convert to float first.
  friend __half operator+(__half, __half) = delete;
  friend __half operator-(__half, __half) = delete;
  friend __half operator*(__half, __half) = delete;
  friend __half operator/(__half, __half) = delete;
};
using half = __half;

struct alignas(4) __half2 {
  __half x, y;
};
using half2 = __half2;

inline float __half2float(__half x) { return pyreid::shim::float_from_half(x.bits); }
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half __double2half(double x) { return __half(x); }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half __low2half(__half2 v) { return v.x; }
inline __half __high2half(__half2 v) { return v.y; }
inline float __low2float(__half2 v) { return v.x; }
inline float __high2float(__half2 v) { return v.y; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
inline __half2 __float22half2_rn(float2 v) { return {__half(v.x), __half(v.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) {
  __half x;
  x.bits = bits;
  return x;
}
inline bool __hisnan(__half x) { return (x.bits & 0x7fffu) > 0x7c00u; }
// NaN if either is
inline __half __hmax_nan(__half x, __half y) { return __hisnan(x) || float(x) > float(y) ? x : y; }
inline __half2 __hmax2_nan(__half2 v, __half2 w) { return {__hmax_nan(v.x, w.x), __hmax_nan(v.y, w.y)}; }
