// Transposes a square of kLanes<T> vectors: what was lane j of vector i becomes lane i of vector j.
#pragma once
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {

// The lanes of a and b in turn: a0 b0 a1 b1 ... The first half of them in low, the second in high.
#ifdef __clang__
#define PYREID_SHUFFLE(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PYREID_SHUFFLE(T, a, b, ...) __builtin_shuffle(a, b, IntVec<T>{__VA_ARGS__})
#endif
template <class T>
inline __attribute__((always_inline)) void interleave(Vec<T> a, Vec<T> b, Vec<T>* low, Vec<T>* high) {
  if constexpr (kLanes<T> == 16) {
    *low = PYREID_SHUFFLE(T, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *high = PYREID_SHUFFLE(T, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  } else if constexpr (kLanes<T> == 8) {
    *low = PYREID_SHUFFLE(T, a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    *high = PYREID_SHUFFLE(T, a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  } else if constexpr (kLanes<T> == 4) {
    *low = PYREID_SHUFFLE(T, a, b, 0, 4, 1, 5);
    *high = PYREID_SHUFFLE(T, a, b, 2, 6, 3, 7);
  } else {
    *low = PYREID_SHUFFLE(T, a, b, 0, 2);
    *high = PYREID_SHUFFLE(T, a, b, 1, 3);
  }
}
#undef PYREID_SHUFFLE

// Each round interleaves vector i with the one half the square below it; as many
// rounds as an index has bits move every bit of the row into the column.
template <class T>
inline __attribute__((always_inline)) void transpose(Vec<T> (&square)[kLanes<T>]) {
  constexpr int64_t kHalf = kLanes<T> / 2;
#pragma GCC unroll 4
  for (int64_t round = 1; round < kLanes<T>; round *= 2) {
    Vec<T> next[kLanes<T>];
#pragma GCC unroll 8
    for (int64_t i = 0; i < kHalf; ++i) interleave<T>(square[i], square[i + kHalf], &next[2 * i], &next[2 * i + 1]);
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes<T>; ++i) square[i] = next[i];
  }
}

}  // namespace pyreid::cpu::PYREID_ISA
