// Vectors of float from float16 and bfloat16 storage and back, rounding to nearest even as torch does.
#pragma once
#include "csrc/cpu/half.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {

// The type in which values of storage type S are computed.
template <class S>
struct ComputeOf {
  typedef float type;
};
template <>
struct ComputeOf<double> {
  typedef double type;
};
template <class S>
using Compute = typename ComputeOf<S>::type;

typedef uint16_t HalfBits __attribute__((vector_size(PYREID_VECTOR_BYTES / 2)));

inline Vec<float> widen(Half, HalfBits half) {
  using Int = Vec<int32_t>;
  const Int bits = __builtin_convertvector(half, Int);
  const Int magnitude = (bits & 0x7fff) << 13;
  const Int normal = magnitude + (112 << 23);  // 112 is the difference of the exponents' biases
  // a subnormal is a multiple of 2^-24: its digits are put behind 2^-14, which is then subtracted
  const Vec<float> smallest_normal = broadcast(0x1p-14f);
  const Int subnormal = reinterpret_cast<Int>(reinterpret_cast<Vec<float>>(magnitude + (113 << 23)) - smallest_normal);
  const Int special = magnitude + (224 << 23);
  const Int value = magnitude < (1 << 23) ? subnormal : magnitude >= (31 << 23) ? special : normal;
  return reinterpret_cast<Vec<float>>(value | ((bits >> 15) << 31));
}

inline Vec<float> widen(BFloat16, HalfBits half) {
  using Int = Vec<int32_t>;
  return reinterpret_cast<Vec<float>>(__builtin_convertvector(half, Int) << 16);
}

inline HalfBits narrow(Half, Vec<float> value) {
  using Int = Vec<int32_t>;
  const Int bits = reinterpret_cast<Int>(value);
  const Int magnitude = bits & 0x7fffffff;
  const Int odd = (magnitude >> 13) & 1;
  const Int normal = (magnitude - (112 << 23) + 0xfff + odd) >> 13;
  // adding 1/2 rounds to a multiple of 2^-24, the spacing of subnormals
  const Vec<float> half = broadcast(0.5f);
  const Int subnormal = reinterpret_cast<Int>(reinterpret_cast<Vec<float>>(magnitude) + half) - (126 << 23);
  const Int special = magnitude > 0x7f800000 ? Int{} + 0x7e00 : Int{} + 0x7c00;
  const Int rounded = magnitude < (113 << 23) ? subnormal : magnitude >= (143 << 23) ? special : normal;
  return __builtin_convertvector(rounded | ((bits >> 16) & 0x8000), HalfBits);
}

// The bits of a float whose upper half is the bfloat16 nearest to it.
inline Vec<uint32_t> round_to_upper_half(Vec<float> value) {
  using Int = Vec<uint32_t>;
  const Int bits = reinterpret_cast<Int>(value);
  return value == value ? bits + 0x7fff + ((bits >> 16) & 1) : Int{} + 0x7fc00000;
}

inline HalfBits narrow(BFloat16, Vec<float> value) {
  return __builtin_convertvector(round_to_upper_half(value) >> 16, HalfBits);
}

// load, store, load_partial and store_partial of vector.h for any storage type.
inline Vec<float> load_values(const float* p) { return load(p); }
inline Vec<double> load_values(const double* p) { return load(p); }
template <class S>
inline Vec<float> load_values(const S* p) {
  HalfBits bits;
  memcpy(&bits, p, sizeof(bits));
  return widen(S{}, bits);
}

inline void store_values(float* p, Vec<float> v) { store(p, v); }
inline void store_values(double* p, Vec<double> v) { store(p, v); }
template <class S>
inline void store_values(S* p, Vec<float> v) {
  const HalfBits bits = narrow(S{}, v);
  memcpy(p, &bits, sizeof(bits));
}

// Two vectors of the 2 kLanes values at p, in an order that only store_two knows: of bfloat16 those at even and at odd
// places, which takes no shuffles.
template <class S, class T = Compute<S>>
inline void load_two(const S* p, Vec<T>* a, Vec<T>* b) {
  *a = load_values(p);
  *b = load_values(p + kLanes<T>);
}
inline void load_two(const BFloat16* p, Vec<float>* a, Vec<float>* b) {
  Vec<uint32_t> words;
  memcpy(&words, p, sizeof(words));
  *a = reinterpret_cast<Vec<float>>(words << 16);
  *b = reinterpret_cast<Vec<float>>(words & 0xffff0000u);
}

template <class S, class T = Compute<S>>
inline void store_two(S* p, Vec<T> a, Vec<T> b) {
  store_values(p, a);
  store_values(p + kLanes<T>, b);
}
inline void store_two(BFloat16* p, Vec<float> a, Vec<float> b) {
  const Vec<uint32_t> words = (round_to_upper_half(a) >> 16) | (round_to_upper_half(b) & 0xffff0000u);
  memcpy(p, &words, sizeof(words));
}

inline Vec<float> load_some(const float* p, int64_t n) { return load_partial(p, n, 0.0f); }
inline Vec<double> load_some(const double* p, int64_t n) { return load_partial(p, n, 0.0); }
template <class S>
inline Vec<float> load_some(const S* p, int64_t n) {
  HalfBits bits{};
  memcpy(&bits, p, static_cast<size_t>(n) * sizeof(S));
  return widen(S{}, bits);
}

inline void store_some(float* p, Vec<float> v, int64_t n) { store_partial(p, v, n); }
inline void store_some(double* p, Vec<double> v, int64_t n) { store_partial(p, v, n); }
template <class S>
inline void store_some(S* p, Vec<float> v, int64_t n) {
  const HalfBits bits = narrow(S{}, v);
  memcpy(p, &bits, static_cast<size_t>(n) * sizeof(S));
}

}  // namespace pyreid::cpu::PYREID_ISA
