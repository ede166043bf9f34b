#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

#define PYREID_NEAREST_DECLARATIONS(T)                                                                              \
  /* Finds the items whose value (csrc/rank_value.h) is < limit, or <= with or_equal: their values and places in */ \
  /* [0, n) to the front of `values` and `places`, which have room for n. Returns how many.                      */ \
  int64_t values_below(const T* products, const T* offset, const T* scale, int64_t n, T limit, bool or_equal,       \
                       T* values, int32_t* places);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_NEAREST_DECLARATIONS(float) PYREID_NEAREST_DECLARATIONS(double))
}  // namespace pyreid::cpu
