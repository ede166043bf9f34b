// Transposes a square of kLanes<T> vectors: what was lane j of vector i becomes lane i of vector j.
#pragma once
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {

// The lower and the upper halves of two vectors, lane by lane in turn.
template <class V, int64_t kWidth>
struct Interleave;
template <class V>
struct Interleave<V, 2> {
  static V low(V a, V b) { return __builtin_shufflevector(a, b, 0, 2); }
  static V high(V a, V b) { return __builtin_shufflevector(a, b, 1, 3); }
};
template <class V>
struct Interleave<V, 4> {
  static V low(V a, V b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
  static V high(V a, V b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
};
template <class V>
struct Interleave<V, 8> {
  static V low(V a, V b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
  static V high(V a, V b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
};
template <class V>
struct Interleave<V, 16> {
  static V low(V a, V b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  }
  static V high(V a, V b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
};

// A pass moves the value at (i, j), as one number of 2 log2(kLanes) bits, to the place whose bits are rotated by one:
// after log2(kLanes) passes i and j have changed places.
template <class T>
inline void transpose(Vec<T> (&v)[kLanes<T>]) {
  constexpr int64_t kCount = kLanes<T>;
  using Lanes = Interleave<Vec<T>, kCount>;
#pragma GCC unroll 4
  for (int64_t pass = 1; pass < kCount; pass *= 2) {
    Vec<T> w[kCount];
#pragma GCC unroll 8
    for (int64_t i = 0; i < kCount / 2; ++i) {
      w[2 * i] = Lanes::low(v[i], v[i + kCount / 2]);
      w[2 * i + 1] = Lanes::high(v[i], v[i + kCount / 2]);
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kCount; ++i) v[i] = w[i];
  }
}

}  // namespace pyreid::cpu::PYREID_ISA
