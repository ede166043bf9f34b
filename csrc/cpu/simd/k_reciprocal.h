#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

#define PYREID_K_RECIPROCAL_DECLARATIONS(T)                                                                           \
  /* Inner products into min(max(norm + 2 (offset - product), 0), limit) / divisor, or the square of that.         */ \
  void scale_distances(T* values, const T* offset, int64_t n, T norm, T limit, T divisor, bool squared);              \
  /* Distances into rest (1 - m / (2 - m)) + lambda distance, where m is the overlap, which becomes 0.             */ \
  void blend_jaccard(T* values, T* overlap, int64_t n, T lambda, T rest, bool clip);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_K_RECIPROCAL_DECLARATIONS(float) PYREID_K_RECIPROCAL_DECLARATIONS(double))
}  // namespace pyreid::cpu
