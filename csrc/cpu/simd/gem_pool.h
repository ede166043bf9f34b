// Inner loops of gem_pool over rows of n > 0 values of storage type S, computed in T. v is x clamped to eps from below.
#pragma once
#include <cstdint>

#include "csrc/cpu/half.h"
#include "csrc/cpu/isa.h"

#define PYREID_GEM_ROW_DECLARATIONS(S, T)                                                                              \
  /* Of each row max v, and the sum of v^power, as it is; power is 1, 2 or 3. NaN is sure to be in the sum alone. */   \
  void gem_plain_sums(const S* x, int64_t rows, int64_t n, int power, T eps, T* largest, double* sum);                 \
  /* max v of each row, NaN if there is one */                                                                         \
  void gem_largest(const S* x, int64_t rows, int64_t n, T eps, T* largest);                                            \
  /* sum of u^p, and of u^p log2 u unless log_sum is null, over u = v / largest; normal numbers only */                \
  void gem_power_sums(const S* x, int64_t n, T largest, T p, T eps, double* sum, double* log_sum);                     \
  /* dx = scale (x inverse)^(power - 1) where x >= eps, else 0; power is 1, 2 or 3 */                                  \
  void gem_plain_gradient(const S* x, int64_t rows, int64_t n, const T* inverse, int power, T eps, const T* scale,     \
                          S* dx);                                                                                      \
  /* dx = scale u^(p - 1) where x >= eps, else 0; normal numbers only */                                               \
  void gem_gradient_row(const S* x, int64_t n, T largest, T p, T eps, T scale, S* dx);                                 \
  /* The same for columns: `count` channels that are neighbours, n values of each, `stride` apart. `largest` is read   \
     and written but by power_sums and gradient, sums are added to; the rest is one number for each channel. */        \
  void gem_columns_plain_sums(const S* x, int64_t n, int64_t stride, int64_t count, int power, T eps, T* largest,      \
                              T* sum);                                                                                 \
  void gem_columns_largest(const S* x, int64_t n, int64_t stride, int64_t count, T* largest);                          \
  void gem_columns_power_sums(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p,      \
                              T eps, T* sum, T* log_sum);                                                              \
  void gem_columns_plain_gradient(const S* x, int64_t n, int64_t stride, int64_t count, const T* inverse, int power,   \
                                  T eps, const T* scale, S* dx);                                                       \
  void gem_columns_gradient(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p, T eps, \
                            const T* scale, S* dx);                                                                    \
  /* for the rows that need care: values as they are, and rounded back to storage */                                   \
  void gem_load(const S* x, int64_t n, T* values);                                                                     \
  void gem_store(const T* values, int64_t n, S* x);

#define PYREID_GEM_DECLARATIONS(T)                                                                                     \
  /* What rows with these sums pool to, of which `unit` is the largest element's share: pooled = largest               \
     (sum / (unit n))^(1/p); factor = d pooled / dx of the largest element; slope = d pooled / dp, unless it is null,  \
     for which unit must be 1. */                                                                                      \
  void gem_finish(const T* largest, const double* sum, const T* unit, const double* log_sum, const T* p, int64_t rows, \
                  int64_t n, T* pooled, T* factor, T* slope);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_GEM_ROW_DECLARATIONS(float, float) PYREID_GEM_ROW_DECLARATIONS(double, double)
                        PYREID_GEM_ROW_DECLARATIONS(Half, float) PYREID_GEM_ROW_DECLARATIONS(BFloat16, float)
                            PYREID_GEM_DECLARATIONS(float) PYREID_GEM_DECLARATIONS(double))
}
