// What the gallery is ranked by, shared by everything that ranks or searches it, on both backends: so they agree.
#pragma once
#include <cstdint>

#include "csrc/host_device.h"

namespace pyreid {

// The value of gallery item g from a query's inner product (or given distance) with it:
//   offset[g] - product     with offset = |g|^2 / 2: half the squared Euclidean distance, up to a constant of the
//   query,
//   -(product * scale[g])   with scale = 1 / |g|: the cosine distance, up to a factor and a constant of the query, or
//   product                 with neither.
// Each value is rounded once, so all instruction sets and both backends agree. csrc/cpu/simd/rank_value.h has it for
// vectors.
template <class T>
PYREID_HOST_DEVICE inline T rank_value(T product, const T* offset, const T* scale, int64_t g) {
  return offset ? offset[g] - product : scale ? -(product * scale[g]) : product;
}

}  // namespace pyreid
