// CPU kernels of masked_mix: y = mask local + (1 - mask) relu(x + identity). Values have storage type S and are
// computed in T (float, or double for double). The feature maps and the mask are laid out as `shape` says.
#pragma once
#include <cstdint>

#include "csrc/cpu/half.h"
#include "csrc/cpu/parallel.h"
#include "csrc/masked_mix.h"

namespace pyreid::cpu {

template <class S, class T>
void masked_mix(const S* local, const S* x, const S* identity, const T* mask, MixShape shape, S* out,
                const ParallelFor& parallel_for);

// One pass for all gradients. What is null is not computed, and inputs that only it needs are not read.
template <class S, class T>
void masked_mix_gradient(const S* grad, const S* local, const S* x, const S* identity, const T* mask, MixShape shape,
                         S* dlocal,
                         S* dx,        // of x and of identity alike
                         T* partials,  // [N, chunks, C]: the mask's gradient by chunks of positions
                         const ParallelFor& parallel_for);

// The mask's gradient from the partial sums, in a fixed order
template <class T>
void masked_mix_mask_gradient(const T* partials, MixShape shape,
                              T* dmask,  // like the mask
                              const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
