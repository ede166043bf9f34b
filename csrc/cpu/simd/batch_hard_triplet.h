#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

#define PYREID_HARD_TRIPLET_DECLARATIONS(T, Int)                                                                      \
  /* Indices of the farthest positive and the nearest negative of anchor i, which has both, in its row of squared */  \
  /* distances. The lowest index wins a tie; a distance that is NaN wins over all others.                         */  \
  void hardest_pair(const T* squared, const Int* identities, int64_t i, int64_t b, int32_t* positive,                 \
                    int32_t* negative);                                                                               \
  /* out = sum over e of weights[e] * (x_i - x_others[e]); rows are d apart                                       */  \
  void weighted_differences(const T* x, int64_t d, int64_t i, const int32_t* others, const T* weights, int64_t count, \
                            T* out);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_HARD_TRIPLET_DECLARATIONS(float, int32_t) PYREID_HARD_TRIPLET_DECLARATIONS(double, int64_t))
}  // namespace pyreid::cpu
