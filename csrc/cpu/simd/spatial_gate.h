// Inner loops of spatial_gate: kLanes<T> planes at a time, one in each lane of a vector. A plane is one channel of one
// sample, height x width values of storage type S, computed in T.
#pragma once
#include <cstdint>

#include "csrc/cpu/half.h"
#include "csrc/cpu/isa.h"

#define PYREID_GATE_DECLARATIONS(S, T)                                                                                 \
  /* Planes [first, first + count) of [N, C, height, width], 0 < count <= gate_planes. scratch: gate_scratch values */ \
  void gate_group(const S* x, const T* weight1, const T* weight2, int64_t first, int64_t count, int64_t channels,      \
                  int64_t height, int64_t width, T slope, T* scratch, S* local, S* avg, S* max, int64_t* argmax);      \
  /* dlocal, davg, dmax, dx and dweights may be null; scratch: gate_gradient_scratch values */                         \
  void gate_gradient_group(const S* dlocal, const S* davg, const S* dmax, const S* x, const T* weight1,                \
                           const T* weight2, const int64_t* argmax, int64_t first, int64_t count, int64_t channels,    \
                           int64_t height, int64_t width, T slope, T* scratch, S* dx, T* dweights);

#define PYREID_GATE_SIZES(T)                                   \
  /* how many planes a group has; the argument only names T */ \
  int64_t gate_planes(T);                                      \
  int64_t gate_scratch(T, int64_t height, int64_t width);      \
  int64_t gate_gradient_scratch(T, int64_t height, int64_t width);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_GATE_DECLARATIONS(float, float) PYREID_GATE_DECLARATIONS(double, double)
                        PYREID_GATE_DECLARATIONS(Half, float) PYREID_GATE_DECLARATIONS(BFloat16, float)
                            PYREID_GATE_SIZES(float) PYREID_GATE_SIZES(double))
}
