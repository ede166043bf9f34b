// float16 and bfloat16 on the host: conversions in integer arithmetic, rounding to nearest even.
#pragma once
#include <cstdint>
#include <cstring>

namespace pyreid::shim {

inline uint32_t float_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// A double as a float whose last bit is set when anything was lost (rounding to odd), so that rounding the float again,
// to half or bfloat16, gives what rounding the double once would have given.
inline float float_to_odd(double x) {
  float y = static_cast<float>(x);
  if (static_cast<double>(y) == x || y != y) return y;
  const double magnitude = x < 0 ? -x : x, rounded = x < 0 ? -static_cast<double>(y) : static_cast<double>(y);
  uint32_t bits = float_bits(y);
  if (rounded > magnitude) --bits;  // towards zero
  return float_of(bits | 1u);
}

inline uint16_t half_from_float(float x) {
  const uint32_t bits = float_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fffu;                                 // NaN, as the device has it
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {                                               // below 2^-14: a multiple of 2^-24
    // Adding 0.5 makes the float's own rounding drop just the bits that a subnormal half lacks.
    return static_cast<uint16_t>(sign | (float_bits(float_of(magnitude) + 0.5f) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

inline float float_from_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 0x1fu, mantissa = half & 0x3ffu;
  if (exponent == 0x1fu) return float_of(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

inline uint16_t bfloat16_from_float(float x) {
  const uint32_t bits = float_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float float_from_bfloat16(uint16_t value) { return float_of(static_cast<uint32_t>(value) << 16); }

}  // namespace pyreid::shim
