// Inner loops of gate_and_pool over rows of n > 0 values; csrc/cpu/gate_and_pool.h has the formulas.
#pragma once
#include <cstdint>

#include "csrc/cpu/half.h"
#include "csrc/cpu/isa.h"

#define PYREID_GATE_DECLARATIONS(S)                                                                                   \
  void gate_row(const S* x, const S* gate, int64_t n, S* local, S* avg, S* largest, int64_t* index);                  \
  /* `count` values of a row of n, each of which has the gradient dlocal + davg / n + dlargest; null ones are 0 */    \
  void gate_gradient_row(const S* dlocal, const S* davg, const S* dlargest, const S* x, const S* gate, int64_t count, \
                         int64_t n, S* dx, S* dgate);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_GATE_DECLARATIONS(float) PYREID_GATE_DECLARATIONS(double) PYREID_GATE_DECLARATIONS(Half)
                        PYREID_GATE_DECLARATIONS(BFloat16))
}
