// Portable SIMD: fixed-width vectors by the compilers' vector extension (GCC and Clang, every architecture). A file of
// csrc/cpu/simd is compiled once per instruction set with PYREID_ISA (its namespace) and PYREID_VECTOR_BYTES. It
// includes nothing of the standard library but fixed-width integers and memcpy: an inline function compiled here for
// AVX-512 could otherwise be the copy that the linker keeps for the whole program.
#pragma once
#include <stdint.h>
#include <string.h>

namespace pyreid::cpu::PYREID_ISA {

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(PYREID_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
inline constexpr int64_t kLanes = PYREID_VECTOR_BYTES / static_cast<int64_t>(sizeof(T));

// Signed integers as wide as T: comparisons of Vec<T> yield them, with -1 for true and 0 for false.
template <class T>
struct IntOf;
template <>
struct IntOf<float> {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};
template <class T>
using Int = typename IntOf<T>::type;
template <class T>
using IntVec = Vec<Int<T>>;

template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  memcpy(&v, p, sizeof(v));
  return v;
}

template <class T>
inline void store(T* p, Vec<T> v) {
  memcpy(p, &v, sizeof(v));
}

template <class T>
inline Vec<T> broadcast(T x) {
  return x - Vec<T>{};  // a scalar operand is spread over the lanes; x - 0 keeps the sign of a zero
}

// The first n < kLanes values at p; the other lanes hold `fill`.
template <class T>
inline Vec<T> load_partial(const T* p, int64_t n, T fill) {
  Vec<T> v = broadcast(fill);
  memcpy(&v, p, static_cast<size_t>(n) * sizeof(T));
  return v;
}

template <class T>
inline void store_partial(T* p, Vec<T> v, int64_t n) {
  memcpy(p, &v, static_cast<size_t>(n) * sizeof(T));
}

// The same for n <= kLanes.
template <class T>
inline Vec<T> load_up_to(const T* p, int64_t n) {
  return n == kLanes<T> ? load(p) : load_partial(p, n, T(0));
}

template <class T>
inline void store_up_to(T* p, Vec<T> v, int64_t n) {
  if (n == kLanes<T>) {
    store(p, v);
  } else {
    store_partial(p, v, n);
  }
}

template <class T, int64_t kWidth>
struct Sum {
  typedef T Whole __attribute__((vector_size(kWidth * sizeof(T))));
  typedef T Half __attribute__((vector_size(kWidth / 2 * sizeof(T))));
  static T of(Whole v) {
    Half low, high;
    memcpy(&low, &v, sizeof(low));
    memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof(low), sizeof(high));
    return Sum<T, kWidth / 2>::of(low + high);
  }
};
template <class T>
struct Sum<T, 2> {
  typedef T Whole __attribute__((vector_size(2 * sizeof(T))));
  static T of(Whole v) { return v[0] + v[1]; }
};

// Sum of the lanes by halves: the order is fixed for a vector width. The halves are vectors too, which keeps them in
// registers; a loop over the lanes in memory is many times slower.
template <class T>
inline T sum_lanes(Vec<T> v) {
  return Sum<T, kLanes<T>>::of(v);
}

template <class T>
inline T max_lanes(Vec<T> v) {
  T lane[kLanes<T>];
  memcpy(lane, &v, sizeof(v));
  T best = lane[0];
  for (int64_t i = 1; i < kLanes<T>; ++i) best = lane[i] > best ? lane[i] : best;
  return best;
}

}  // namespace pyreid::cpu::PYREID_ISA
