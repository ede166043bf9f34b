// Inner loops of masked_mix on values of storage type S, computed in T: over a row, which has one value of the mask,
// and over `positions` rows of channels, each of which has its own. Arguments are those of csrc/cpu/masked_mix.h.
#pragma once
#include <cstdint>

#include "csrc/cpu/half.h"
#include "csrc/cpu/isa.h"

#define PYREID_MIX_DECLARATIONS(S, T)                                                                                  \
  void mix_row(const S* local, const S* x, const S* identity, int64_t n, T mask, S* out);                              \
  void mix_channels(const S* local, const S* x, const S* identity, const T* mask, int64_t positions, int64_t channels, \
                    S* out);                                                                                           \
  /* dlocal, dx and the mask's gradient, each unless it is null */                                                     \
  void mix_gradient_row(const S* grad, const S* local, const S* x, const S* identity, int64_t n, T mask, S* dlocal,    \
                        S* dx, T* dmask);                                                                              \
  void mix_gradient_channels(const S* grad, const S* local, const S* x, const S* identity, const T* mask,              \
                             int64_t positions, int64_t channels, S* dlocal, S* dx, T* dmask);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_MIX_DECLARATIONS(float, float) PYREID_MIX_DECLARATIONS(double, double)
                        PYREID_MIX_DECLARATIONS(Half, float) PYREID_MIX_DECLARATIONS(BFloat16, float))
}
