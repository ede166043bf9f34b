#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

#define PYREID_SELF_DISTANCES_DECLARATIONS(T)                                                                        \
  /* Rows of a strip, which stand side by side: packed[(strip * d + k) * strip_rows + r] is column k of row          \
     strip * strip_rows + r, and 0 past the last row. The argument chooses the type.                              */ \
  int64_t strip_rows(T);                                                                                             \
  /* Packs the columns [begin, end) of a strip of x [B, D].                                                       */ \
  void pack_strip(const T* x, int64_t b, int64_t d, int64_t strip, int64_t begin, int64_t end, T* packed);           \
  /* Tiles of pairs that cover the lower triangle of the matrix of distances, and the pairs of a tile at most.    */ \
  int64_t count_tiles(int64_t b, T);                                                                                 \
  int64_t tile_pairs(T);                                                                                             \
  /* Writes the pairs of the tiles [begin, end) and their mirror images into squared [B, B].                      */ \
  void squared_distances(const T* packed, int64_t b, int64_t d, int64_t begin, int64_t end, T* squared);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_SELF_DISTANCES_DECLARATIONS(float) PYREID_SELF_DISTANCES_DECLARATIONS(double))
}  // namespace pyreid::cpu
