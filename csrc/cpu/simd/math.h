// Vectorised log2, exp2 and exp on the portable vectors of vector.h, in float and double. log2 of a power of two and
// exp2 of an integer are exact. Errors are below, in units in the last place of the result:
//   float   log2 1.8   exp2 1.2    (every float in [1/8, 8), where the errors are largest, and a sample of the rest)
//   double  log2 3.5   exp2 1.25   (40 million values; the largest seen were 2.89 and 1.20)
// Without fused multiply-add, that is; with it they are a little smaller. exp is within 1.5 in both.
// They need round-to-nearest and must not be compiled with -ffast-math.
#pragma once
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {

template <class T>
struct FloatFormat;

// The polynomials are minimax fits (relative error), found by the Remez algorithm in 200 bits and rounded.
template <>
struct FloatFormat<float> {
  using Bits = uint32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr int kBias = 127;
  static constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer, which its low bits then hold
  static constexpr Bits kMagicBits = 0x4b400000u, kOneBits = 0x3f800000u, kSqrtHalfBits = 0x3f3504f3u;
  static constexpr float kLog2E = 0x1.715476p0f, kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kLowestExponent = -87.0f;  // of e: smaller powers are subnormal
  // (2^f - 1) / f on [-1/2, 1/2], error 2^-26.6
  static constexpr float kExp2[] = {0x1.62e430p-1f, 0x1.ebfbdep-3f,  0x1.c6af74p-5f,
                                    0x1.3b2d58p-7f, 0x1.5f053ap-10f, 0x1.41a702p-13f};
  // log2(1 + f) / f on [sqrt(1/2) - 1, sqrt(2) - 1], error 2^-25.6
  static constexpr float kLog2[] = {0x1.715476p+0f, -0x1.715470p-1f, 0x1.ec7096p-2f, -0x1.715a76p-2f,
                                    0x1.277e38p-2f, -0x1.eabc86p-3f, 0x1.a305a2p-3f, -0x1.874bf0p-3f,
                                    0x1.7d4970p-3f, -0x1.c25aa8p-4f};
};

template <>
struct FloatFormat<double> {
  using Bits = uint64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr int kBias = 1023;
  static constexpr double kMagic = 0x1.8p52;
  static constexpr Bits kMagicBits = 0x4338000000000000u, kOneBits = 0x3ff0000000000000u,
                        kSqrtHalfBits = 0x3fe6a09e667f3bcdu;
  static constexpr double kLog2E = 0x1.71547652b82fep0, kLn2High = 0x1.62e42fefap-1, kLn2Low = 0x1.cf79abc9e3b39p-40;
  static constexpr double kLowestExponent = -708.0;
  // (2^f - 1) / f on [-1/2, 1/2], error 2^-55.1
  static constexpr double kExp2[] = {0x1.62e42fefa39efp-1,  0x1.ebfbdff82c598p-3,  0x1.c6b08d704a052p-5,
                                     0x1.3b2ab6fba1f4fp-7,  0x1.5d87fe78c128ap-10, 0x1.430913091bd24p-13,
                                     0x1.ffcbfbc9b5823p-17, 0x1.62bfd557d66b7p-20, 0x1.b526636f1acc2p-24,
                                     0x1.e604b0203a3c0p-28, 0x1.e792076631574p-32};
  // log2(1 + f) / s as a polynomial in s^2, s = f / (2 + f), on the same range of f, error 2^-55.9
  static constexpr double kLog2[] = {0x1.71547652b82fep+1, 0x1.ec709dc3a047dp-1, 0x1.2776c50ee381ap-1,
                                     0x1.a61762d6c0552p-2, 0x1.484afb696c466p-2, 0x1.0ca163b107d12p-2,
                                     0x1.c46d70c6e689dp-3, 0x1.b59907161323fp-3};
};

// coefficients[0] + coefficients[1] x + ... by Horner's rule
template <class T, int kCount>
inline Vec<T> polynomial(Vec<T> x, const T (&coefficients)[kCount]) {
  Vec<T> value = broadcast(coefficients[kCount - 1]);
#pragma GCC unroll 16
  for (int k = kCount - 2; k >= 0; --k) value = value * x + coefficients[k];
  return value;
}

inline Vec<float> log2_of_mantissa(Vec<float> f) { return f * polynomial<float>(f, FloatFormat<float>::kLog2); }

// The series of atanh needs a division but half the terms.
inline Vec<double> log2_of_mantissa(Vec<double> f) {
  const Vec<double> s = f / (f + 2.0);
  return s * polynomial<double>(s * s, FloatFormat<double>::kLog2);
}

// x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2))
template <class T>
inline void split_for_log2(Vec<T> x, Vec<T>* e, Vec<T>* f) {
  using Format = FloatFormat<T>;
  using Bits = Vec<typename Format::Bits>;
  const Bits shifted = reinterpret_cast<Bits>(x) + (Format::kOneBits - Format::kSqrtHalfBits);
  const Bits mantissa_mask = Bits{} + ((typename Format::Bits{1} << Format::kMantissaBits) - 1);
  *f = reinterpret_cast<Vec<T>>((shifted & mantissa_mask) + Format::kSqrtHalfBits) - T(1);
  const Bits biased = (shifted >> Format::kMantissaBits) + Format::kMagicBits;
  *e = reinterpret_cast<Vec<T>>(biased) - (Format::kMagic + T(Format::kBias));
}

// Base-2 logarithm of positive, normal, finite values; the result for any other value is meaningless.
template <class T>
inline Vec<T> log2(Vec<T> x) {
  Vec<T> e, f;
  split_for_log2<T>(x, &e, &f);
  return e + log2_of_mantissa(f);
}

// t = n + f with f in [-1/2, 1/2], power = 2^n
template <class T>
inline void split_for_exp2(Vec<T> t, Vec<T>* power, Vec<T>* f) {
  using Format = FloatFormat<T>;
  using Bits = Vec<typename Format::Bits>;
  const Vec<T> lowest = broadcast(T(-Format::kBias)), highest = broadcast(T(Format::kBias + 1));
  t = t < lowest ? lowest : t;
  t = t > highest ? highest : t;
  const Vec<T> rounded = t + Format::kMagic;
  *f = t - (rounded - Format::kMagic);
  *power = reinterpret_cast<Vec<T>>((reinterpret_cast<Bits>(rounded) + typename Format::Bits{Format::kBias})
                                    << Format::kMantissaBits);
}

// 2^t. Results that would leave the normal range become 0 (t <= -kBias + 1/2) and infinity (t >= kBias + 1/2); NaN
// stays.
template <class T>
inline Vec<T> exp2(Vec<T> t) {
  Vec<T> power, f;
  split_for_exp2<T>(t, &power, &f);
  return (f * polynomial<T>(f, FloatFormat<T>::kExp2) + T(1)) * power;
}

// log2 and exp2 of kCount vectors, with the same results, in place. One is a chain of some twenty dependent operations,
// of which a processor sees only a few ahead: side by side the chains overlap.
template <class T, int kCount, int kTerms>
inline void polynomials(const Vec<T> (&x)[kCount], const T (&coefficients)[kTerms], Vec<T> (&value)[kCount]) {
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) value[i] = broadcast(coefficients[kTerms - 1]);
#pragma GCC unroll 16
  for (int k = kTerms - 2; k >= 0; --k) {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) value[i] = value[i] * x[i] + coefficients[k];
  }
}

template <class T, int kCount>
inline void log2_of_each(Vec<T> (&x)[kCount]) {
  if constexpr (sizeof(T) == 8) {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) x[i] = log2<T>(x[i]);
  } else {
    Vec<T> e[kCount], f[kCount], value[kCount];
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) split_for_log2<T>(x[i], &e[i], &f[i]);
    polynomials<T>(f, FloatFormat<T>::kLog2, value);
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) x[i] = e[i] + f[i] * value[i];
  }
}

template <class T, int kCount>
inline void exp2_of_each(Vec<T> (&t)[kCount]) {
  Vec<T> power[kCount], f[kCount], value[kCount];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) split_for_exp2<T>(t[i], &power[i], &f[i]);
  polynomials<T>(f, FloatFormat<T>::kExp2, value);
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) t[i] = (f[i] * value[i] + T(1)) * power[i];
}

// e^x for x <= 0, what softmax and its kin need; 0 where the result would be subnormal, and NaN stays. exp2(x log2 e)
// would multiply the rounding error of the product by |x|: x is reduced by a multiple of ln 2 in two parts first.
template <class T>
inline Vec<T> exp_nonpositive(Vec<T> x) {
  using Format = FloatFormat<T>;
  using Bits = Vec<typename Format::Bits>;
  const Vec<T> lowest = broadcast(Format::kLowestExponent);
  const Vec<T> clamped = x < lowest ? lowest : x;
  const Vec<T> rounded = clamped * Format::kLog2E + Format::kMagic;
  const Vec<T> n = rounded - Format::kMagic;
  const Vec<T> f = ((clamped - n * Format::kLn2High) - n * Format::kLn2Low) * Format::kLog2E;
  const Bits power = (reinterpret_cast<Bits>(rounded) + typename Format::Bits{Format::kBias}) << Format::kMantissaBits;
  const Vec<T> scaled = (f * polynomial<T>(f, Format::kExp2) + T(1)) * reinterpret_cast<Vec<T>>(power);
  return x == x ? (x < lowest ? Vec<T>{} : scaled) : x;
}

}  // namespace pyreid::cpu::PYREID_ISA
