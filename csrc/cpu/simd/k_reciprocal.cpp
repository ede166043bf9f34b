#include "csrc/cpu/simd/k_reciprocal.h"

#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

template <class T>
void scale_distances_impl(T* values, const T* offset, int64_t n, T norm, T limit, T divisor, bool squared) {
  constexpr int64_t kStep = kLanes<T>;
  const Vec<T> zeros{}, limits = broadcast(limit);
  const auto scale = [&](Vec<T> product, Vec<T> offsets) {
    Vec<T> v = norm + T(2) * (offsets - product);
    v = v > zeros ? v : zeros;
    v = (v < limits ? v : limits) / divisor;
    return squared ? v * v : v;
  };
  int64_t j = 0;
  for (; j + kStep <= n; j += kStep) store(values + j, scale(load(values + j), load(offset + j)));
  if (j < n) {
    const Vec<T> v = scale(load_partial(values + j, n - j, T(0)), load_partial(offset + j, n - j, T(0)));
    store_partial<T>(values + j, v, n - j);
  }
}

template <class T>
void blend_jaccard_impl(T* values, T* overlap, int64_t n, T lambda, T rest, bool clip) {
  constexpr int64_t kStep = kLanes<T>;
  const Vec<T> zeros{};
  const auto blend = [&](Vec<T> value, Vec<T> m) {
    Vec<T> jaccard = T(1) - m / (T(2) - m);
    if (clip) jaccard = jaccard > zeros ? jaccard : zeros;
    return jaccard * rest + value * lambda;
  };
  int64_t j = 0;
  for (; j + kStep <= n; j += kStep) {
    store(values + j, blend(load(values + j), load(overlap + j)));
    store(overlap + j, zeros);
  }
  if (j < n) {
    store_partial<T>(values + j, blend(load_partial(values + j, n - j, T(0)), load_partial(overlap + j, n - j, T(0))),
                     n - j);
    store_partial<T>(overlap + j, zeros, n - j);
  }
}

}  // namespace

#define PYREID_DEFINE_K_RECIPROCAL(T)                                                                     \
  void scale_distances(T* values, const T* offset, int64_t n, T norm, T limit, T divisor, bool squared) { \
    scale_distances_impl(values, offset, n, norm, limit, divisor, squared);                               \
  }                                                                                                       \
  void blend_jaccard(T* values, T* overlap, int64_t n, T lambda, T rest, bool clip) {                     \
    blend_jaccard_impl(values, overlap, n, lambda, rest, clip);                                           \
  }

PYREID_DEFINE_K_RECIPROCAL(float)
PYREID_DEFINE_K_RECIPROCAL(double)

}  // namespace pyreid::cpu::PYREID_ISA
