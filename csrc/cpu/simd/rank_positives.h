#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

#define PYREID_RANK_POSITIVES_DECLARATIONS(T)                                                                      \
  /* The values of n items (csrc/rank_value.h) into out; returns how many of them are NaN.                     */  \
  int64_t rank_values(const T* values, const T* offset, const T* scale, int64_t n, T* out);                        \
  /* below[p] += number of values < thresholds[p], or <= with or_equal. n: a multiple of 64 bytes, below 2^31. */  \
  void count_below(const T* values, int64_t n, const T* thresholds, int64_t count, bool or_equal, int64_t* below); \
  /* at[j] = number of the ascending thresholds that are <= values[j]; count for NaN. n: as above, count >= 1. */  \
  void search_thresholds(const T* values, int64_t n, const T* thresholds, int64_t count, int64_t* at);             \
  /* Number of values equal to x.                                                                              */  \
  int64_t count_equal(const T* values, int64_t n, T x);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_RANK_POSITIVES_DECLARATIONS(float) PYREID_RANK_POSITIVES_DECLARATIONS(double))
}  // namespace pyreid::cpu
