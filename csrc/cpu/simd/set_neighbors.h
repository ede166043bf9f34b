#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

#define PYREID_SET_NEIGHBORS_DECLARATIONS(T, Index)                                                                   \
  /* The values of n pairs (csrc/cpu/set_neighbors.h) into `values`, the places of those < limit into `hits`;     */  \
  /* raises *most to the largest value. Returns the number of hits.                                               */  \
  int64_t row_candidates(const T* products, const T* offset, int64_t n, T limit, T* values, T* most, int32_t* hits);  \
  /* The places of the values offset - products[j] < limits[j] into `hits`, and where a value is the farthest, it  */ \
  /* and `item` into the farthest of its place. Returns the number of hits.                                       */  \
  int64_t column_candidates(const T* products, T offset, int64_t n, const T* limits, T* farthest_value,               \
                            Index* farthest, Index item, int32_t* hits);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_SET_NEIGHBORS_DECLARATIONS(float, int32_t)
                        PYREID_SET_NEIGHBORS_DECLARATIONS(double, int64_t))
}  // namespace pyreid::cpu
