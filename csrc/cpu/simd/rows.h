// Sums over one or two rows: the inner loops that several operators share.
#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

#define PYREID_ROWS_DECLARATIONS(T)                                           \
  T squared_norm(const T* x, int64_t n);                                      \
  T squared_distance(const T* x, const T* y, int64_t n);                      \
  /* |x - ratio y|^2 */                                                       \
  T squared_distance_to_multiple(const T* x, const T* y, T ratio, int64_t n); \
  /* out += weight (scale x - y) */                                           \
  void add_weighted_difference(T* out, const T* x, const T* y, T weight, T scale, int64_t n);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_ROWS_DECLARATIONS(float) PYREID_ROWS_DECLARATIONS(double))
}  // namespace pyreid::cpu
