// Stands in for the toolkit's header of this name: bfloat16 as a storage type with its conversions.
#pragma once
#include "cpp_tests/shim/half.h"
#include "cpp_tests/shim/vector_types.h"

struct alignas(2) __nv_bfloat16 {
  unsigned short bits;
  __nv_bfloat16() = default;
  __nv_bfloat16(float x) : bits(pyreid::shim::bfloat16_from_float(x)) {}
  __nv_bfloat16(int x) : __nv_bfloat16(static_cast<double>(x)) {}
  __nv_bfloat16(double x) : bits(pyreid::shim::bfloat16_from_float(pyreid::shim::float_to_odd(x))) {}
  operator float() const { return pyreid::shim::float_from_bfloat16(bits); }
  // The device would round every step: kernels convert to float first.
  friend __nv_bfloat16 operator+(__nv_bfloat16, __nv_bfloat16) = delete;
  friend __nv_bfloat16 operator-(__nv_bfloat16, __nv_bfloat16) = delete;
  friend __nv_bfloat16 operator*(__nv_bfloat16, __nv_bfloat16) = delete;
  friend __nv_bfloat16 operator/(__nv_bfloat16, __nv_bfloat16) = delete;
};
using nv_bfloat16 = __nv_bfloat16;

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
using nv_bfloat162 = __nv_bfloat162;

inline float __bfloat162float(__nv_bfloat16 x) { return pyreid::shim::float_from_bfloat16(x.bits); }
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __double2bfloat16(double x) { return __nv_bfloat16(x); }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline float __low2float(__nv_bfloat162 v) { return v.x; }
inline float __high2float(__nv_bfloat162 v) { return v.y; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {__nv_bfloat16(v.x), __nv_bfloat16(v.y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 x;
  x.bits = bits;
  return x;
}
inline bool __hisnan(__nv_bfloat16 x) { return (x.bits & 0x7fffu) > 0x7f80u; }
// NaN if either is
inline __nv_bfloat16 __hmax_nan(__nv_bfloat16 x, __nv_bfloat16 y) { return __hisnan(x) || float(x) > float(y) ? x : y; }
inline __nv_bfloat162 __hmax2_nan(__nv_bfloat162 v, __nv_bfloat162 w) {
  return {__hmax_nan(v.x, w.x), __hmax_nan(v.y, w.y)};
}
