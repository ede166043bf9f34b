#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"
#include "csrc/metric.h"

#define PYREID_PAIRWISE_DECLARATIONS(T)                                                                           \
  /* Row i of distances from the row of inner products, in place. Euclidean metrics leave pairs that cancel   */  \
  /* to the caller: they are set to -1.                                                                        */ \
  bool distance_row(T* row, T x_norm, const T* y_norms, int64_t m, Metric metric);                                \
  /* weights of a row, their contribution to the row's scale is returned                                       */ \
  T gradient_row(const T* grad, const T* distance, T x_norm, const T* y_norms, int64_t m, Metric metric, T* weights);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_PAIRWISE_DECLARATIONS(float) PYREID_PAIRWISE_DECLARATIONS(double))
}
