// The vector functions of math.h over arrays: what cpp_tests see of them, compiled like their callers.
#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

#define PYREID_ELEMENTWISE_DECLARATIONS(T)                                   \
  void log2_values(const T* x, int64_t n, T* out); /* positive and normal */ \
  void exp2_values(const T* x, int64_t n, T* out);                           \
  void exp_nonpositive_values(const T* x, int64_t n, T* out);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_ELEMENTWISE_DECLARATIONS(float) PYREID_ELEMENTWISE_DECLARATIONS(double))
}
