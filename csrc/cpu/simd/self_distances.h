#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

namespace pyreid::cpu {

// Rows of each side of a block of pairs.
inline constexpr int64_t kBlockRows = 8;

}  // namespace pyreid::cpu

#define PYREID_SELF_DISTANCES_DECLARATIONS(T)                                                                       \
  /* squared[i * kBlockRows + j] = |a_i - b_j|^2 for the first rows_a <= kBlockRows rows of a and rows_b of b,   */ \
  /* whose rows are d apart. A pair's value does not depend on its place in the block. With a == b each pair is  */ \
  /* summed once.                                                                                                */ \
  void block_squared_distances(const T* a, int64_t rows_a, const T* b, int64_t rows_b, int64_t d, T* squared);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_SELF_DISTANCES_DECLARATIONS(float) PYREID_SELF_DISTANCES_DECLARATIONS(double))
}  // namespace pyreid::cpu
