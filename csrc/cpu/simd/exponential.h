// exp for vectors, of arguments that are not positive: what softmax and its kin need.
#pragma once
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {

template <class T>
struct ExpConstants;

// exp(x) = 2^n exp(r) with n = round(x / ln 2), and |r| <= ln 2 / 2. Adding kRound leaves n in the low bits of the sum.
// ln 2 in two parts keeps r exact. Below kLowest the result would be subnormal: it is set to 0.
template <>
struct ExpConstants<float> {
  using Bits = uint32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr float kRound = 0x1.8p23f, kLog2E = 0x1.715476p0f, kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kLowest = -87.0f;
  static constexpr int kDegree = 7;  // r^8 / 8! < 6e-9
};
template <>
struct ExpConstants<double> {
  using Bits = uint64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr double kRound = 0x1.8p52, kLog2E = 0x1.71547652b82fep0, kLn2High = 0x1.62e42fefap-1,
                          kLn2Low = 0x1.cf79abc9e3b39p-40;
  static constexpr double kLowest = -708.0;
  static constexpr int kDegree = 13;  // r^14 / 14! < 5e-18
};

// exp(x) for x <= 0, within 2 units in the last place; NaN for NaN.
template <class T>
inline Vec<T> exp_nonpositive(Vec<T> x) {
  using C = ExpConstants<T>;
  const Vec<T> lowest = broadcast(C::kLowest);
  const Vec<T> clamped = x < lowest ? lowest : x;
  const Vec<T> rounded = clamped * C::kLog2E + C::kRound;
  const Vec<T> n = rounded - C::kRound;
  const Vec<T> r = (clamped - n * C::kLn2High) - n * C::kLn2Low;
  double factorial = 1;
  T coefficients[C::kDegree + 1] = {1};
  for (int k = 1; k <= C::kDegree; ++k) {
    factorial *= k;
    coefficients[k] = static_cast<T>(1 / factorial);
  }
  Vec<T> p = broadcast(coefficients[C::kDegree]);
  for (int k = C::kDegree - 1; k >= 0; --k) p = p * r + coefficients[k];
  // Unsigned: a negative n is added to the exponent modulo a power of two.
  using Bits = Vec<typename C::Bits>;
  const Vec<T> scaled =
      reinterpret_cast<Vec<T>>(reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(rounded) << C::kMantissaBits));
  return x == x ? (x < lowest ? Vec<T>{} : scaled) : x;
}

}  // namespace pyreid::cpu::PYREID_ISA
