#include "csrc/cpu/simd/elementwise.h"

#include "csrc/cpu/simd/math.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

template <class T, class Function>
inline void map_values(const T* x, int64_t n, T* out, Function function) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) store(out + i, function(load(x + i)));
  if (i < n) store_partial(out + i, function(load_partial(x + i, n - i, T(1))), n - i);
}

}  // namespace

#define PYREID_DEFINE_ELEMENTWISE(T)                                                 \
  void log2_values(const T* x, int64_t n, T* out) {                                  \
    map_values(x, n, out, [](Vec<T> v) -> Vec<T> { return log2<T>(v); });            \
  }                                                                                  \
  void exp2_values(const T* x, int64_t n, T* out) {                                  \
    map_values(x, n, out, [](Vec<T> v) -> Vec<T> { return exp2<T>(v); });            \
  }                                                                                  \
  void exp_nonpositive_values(const T* x, int64_t n, T* out) {                       \
    map_values(x, n, out, [](Vec<T> v) -> Vec<T> { return exp_nonpositive<T>(v); }); \
  }

PYREID_DEFINE_ELEMENTWISE(float)
PYREID_DEFINE_ELEMENTWISE(double)

}  // namespace pyreid::cpu::PYREID_ISA
