// CPU kernels of spatial_gate: h = conv(x, weight1), a = conv(leaky(h), weight2), local = relu(sigmoid(a) x), both
// convolutions 3x3, one filter for each channel, zeros outside; and the mean and the maximum of local over each plane.
// Values have storage type S and are computed in T (float, or double for double).
#pragma once
#include <cstdint>

#include "csrc/cpu/half.h"
#include "csrc/cpu/parallel.h"

namespace pyreid::cpu {

template <class S, class T>
void spatial_gate(const S* x,                          // [N, C, height, width]
                  const T* weight1, const T* weight2,  // [C, 9]
                  int64_t samples, int64_t channels, int64_t height, int64_t width, T slope,
                  S* local,         // [N, C, height, width]
                  S* avg, S* max,   // [N, C]
                  int64_t* argmax,  // [N, C], the first position that has the maximum, before rounding to S
                  const ParallelFor& parallel_for);

// dlocal, davg and dmax may be null, for zero; dx and dweights may be null, for not wanted.
template <class S, class T>
void spatial_gate_gradient(const S* dlocal,                     // [N, C, height, width]
                           const S* davg, const S* dmax,        // [N, C]
                           const S* x,                          // [N, C, height, width]
                           const T* weight1, const T* weight2,  // [C, 9]
                           const int64_t* argmax,               // [N, C]
                           int64_t samples, int64_t channels, int64_t height, int64_t width, T slope,
                           S* dx,        // [N, C, height, width]
                           T* dweights,  // [N, C, 18], of weight1 and then weight2
                           const ParallelFor& parallel_for);

// Sums over the samples, in their order and in double.
template <class T>
void spatial_gate_weight_gradient(const T* dweights,                                            // [N, C, 18]
                                  int64_t samples, int64_t channels, T* dweight1, T* dweight2,  // [C, 9]
                                  const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
