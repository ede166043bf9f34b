// CPU kernels of gem_pool: y = (mean over a row of max(x, eps)^p)^(1/p). A row is one channel of one sample: n values
// of storage type S, computed in T (float, or double for double). With channels_last x and dx are [N, n, C].
#pragma once
#include <cstdint>

#include "csrc/cpu/half.h"
#include "csrc/cpu/parallel.h"
#include "csrc/gem_pool.h"

namespace pyreid::cpu {

template <class S, class T>
void gem_pool(const S* x,  // [N, C, n]
              int64_t samples, int64_t channels, int64_t n, bool channels_last, GemExponent<T> p, T eps,
              T* pooled,   // [N, C]
              T* largest,  // [N, C], the largest clamped value of the row
              T* factor,   // [N, C], dy/dx of an element that has it
              T* slope,    // [N, C], dy/dp, or null
              const ParallelFor& parallel_for);

// dx = grad factor (v / largest)^(p - 1) where x >= eps, else 0
template <class S, class T>
void gem_pool_gradient(const T* grad,  // [N, C]
                       const S* x,     // [N, C, n]
                       const T* largest, const T* factor, int64_t samples, int64_t channels, int64_t n,
                       bool channels_last, GemExponent<T> p, T eps,
                       S* dx,  // [N, C, n]
                       const ParallelFor& parallel_for);

// dp = sum of grad slope over samples, and over channels if dp has one value; in a fixed order
template <class T>
void gem_pool_exponent_gradient(const T* grad,   // [N, C]
                                const T* slope,  // [N, C]
                                int64_t samples, int64_t channels,
                                double* by_channel,  // [C], scratch
                                int64_t count,       // 1 or C
                                T* dp,               // [count]
                                const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
