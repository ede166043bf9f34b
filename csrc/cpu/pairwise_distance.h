// CPU kernels of pairwise_distance. The matrix product is the caller's; these turn it into distances and back.
#pragma once
#include <cstdint>

#include "csrc/cpu/parallel.h"
#include "csrc/metric.h"

namespace pyreid::cpu {

// norms[i] = |x_i|^2
template <class T>
void squared_norms(const T* x,  // [N, D]
                   int64_t n, int64_t d,
                   T* norms,  // [N]
                   const ParallelFor& parallel_for);

// Replaces the inner products in `out` by distances.
template <class T>
void distances_from_products(const T* x,        // [N, D]
                             const T* y,        // [M, D]
                             const T* x_norms,  // [N], squared
                             const T* y_norms,  // [M], squared
                             int64_t n, int64_t m, int64_t d, Metric metric,
                             bool same,  // x is y: the diagonal is exactly zero
                             T* out,     // [N, M], in: inner products
                             const ParallelFor& parallel_for);

// The gradients are dx = diag(x_scale) x - weights y and dy = diag(y_scale) y - weights^T x.
template <class T>
void distance_gradient_weights(const T* grad,      // [N, M]
                               const T* distance,  // [N, M]
                               const T* x_norms,   // [N], squared
                               const T* y_norms,   // [M], squared
                               int64_t n, int64_t m, Metric metric,
                               T* weights,  // [N, M]
                               T* x_scale,  // [N]
                               T* y_scale,  // [M]
                               const ParallelFor& parallel_for);

// out = diag(scale) x - out
template <class T>
void scaled_rows_minus(const T* x,      // [N, D]
                       const T* scale,  // [N]
                       int64_t n, int64_t d,
                       T* out,  // [N, D]
                       const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
