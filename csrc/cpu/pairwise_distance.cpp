#include "csrc/cpu/pairwise_distance.h"

#include <algorithm>
#include <cmath>

#include "csrc/cpu/simd/pairwise_distance.h"
#include "csrc/cpu/simd/rows.h"

namespace pyreid::cpu {
template <class T>
void squared_norms(const T* x, int64_t n, int64_t d, T* norms, const ParallelFor& parallel_for) {
  parallel_for(0, n, grain_for(d), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) norms[i] = PYREID_SIMD(squared_norm, x + i * d, d);
  });
}

template <class T>
void distances_from_products(const T* x, const T* y, const T* x_norms, const T* y_norms, int64_t n, int64_t m,
                             int64_t d, Metric metric, bool same, T* out, const ParallelFor& parallel_for) {
  parallel_for(0, n, grain_for(m), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* row = out + i * m;
      if (PYREID_SIMD(distance_row, row, x_norms[i], y_norms, m, metric)) {
        for (int64_t j = 0; j < m; ++j) {
          if (row[j] >= 0 || std::isnan(row[j])) continue;
          const T squared = PYREID_SIMD(squared_distance, x + i * d, y + j * d, d);
          row[j] = metric == Metric::kEuclidean ? std::sqrt(squared) : squared;
        }
      }
      // The distance of a row to itself; NaN and infinite rows, and rows without a direction, have none.
      if (same && (metric != Metric::kCosine || x_norms[i] > 0)) {
        row[i] = std::isfinite(x_norms[i]) ? T(0) : PYREID_SIMD(squared_distance, x + i * d, x + i * d, d);
      }
    }
  });
}

template <class T>
void distance_gradient_weights(const T* grad, const T* distance, const T* x_norms, const T* y_norms, int64_t n,
                               int64_t m, Metric metric, T* weights, T* x_scale, T* y_scale,
                               const ParallelFor& parallel_for) {
  parallel_for(0, n, grain_for(m), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      x_scale[i] =
          PYREID_SIMD(gradient_row, grad + i * m, distance + i * m, x_norms[i], y_norms, m, metric, weights + i * m);
    }
  });
  // Column sums: each task owns a block of columns and walks down all rows, so the order of summation is fixed.
  parallel_for(0, m, grain_for(n), [=](int64_t begin, int64_t end) {
    std::fill(y_scale + begin, y_scale + end, T(0));
    for (int64_t i = 0; i < n; ++i) {
      const T* w = weights + i * m;
      const T* g = grad + i * m;
      const T* dist = distance + i * m;
      if (metric == Metric::kCosine) {
        for (int64_t j = begin; j < end; ++j) y_scale[j] += g[j] * (T(1) - dist[j]);
      } else {
        for (int64_t j = begin; j < end; ++j) y_scale[j] += w[j];
      }
    }
    if (metric == Metric::kCosine) {
      for (int64_t j = begin; j < end; ++j) y_scale[j] = y_norms[j] > 0 ? y_scale[j] / y_norms[j] : T(0);
    }
  });
}

template <class T>
void scaled_rows_minus(const T* x, const T* scale, int64_t n, int64_t d, T* out, const ParallelFor& parallel_for) {
  parallel_for(0, n, grain_for(d), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t k = 0; k < d; ++k) out[i * d + k] = scale[i] * x[i * d + k] - out[i * d + k];
    }
  });
}

#define PYREID_INSTANTIATE(T)                                                                                       \
  template void squared_norms(const T*, int64_t, int64_t, T*, const ParallelFor&);                                  \
  template void distances_from_products(const T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, Metric,  \
                                        bool, T*, const ParallelFor&);                                              \
  template void distance_gradient_weights(const T*, const T*, const T*, const T*, int64_t, int64_t, Metric, T*, T*, \
                                          T*, const ParallelFor&);                                                  \
  template void scaled_rows_minus(const T*, const T*, int64_t, int64_t, T*, const ParallelFor&);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cpu
