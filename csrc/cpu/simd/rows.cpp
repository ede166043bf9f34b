#include "csrc/cpu/simd/rows.h"

#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// Four accumulators hide the latency of the fused multiply-add; the order of summation depends on n alone.
template <class T, class Term>
inline T sum_terms(int64_t n, Term term) {
  constexpr int64_t kStep = kLanes<T>;
  Vec<T> s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * kStep <= n; i += 4 * kStep) {
    s0 = term(i, s0);
    s1 = term(i + kStep, s1);
    s2 = term(i + 2 * kStep, s2);
    s3 = term(i + 3 * kStep, s3);
  }
  for (; i + kStep <= n; i += kStep) s0 = term(i, s0);
  if (i < n) s1 = term.partial(i, n - i, s1);
  return sum_lanes<T>((s0 + s1) + (s2 + s3));
}

template <class T>
struct Square {
  const T* x;
  Vec<T> operator()(int64_t i, Vec<T> s) const {
    const Vec<T> v = load(x + i);
    return s + v * v;
  }
  Vec<T> partial(int64_t i, int64_t n, Vec<T> s) const {
    const Vec<T> v = load_partial(x + i, n, T(0));
    return s + v * v;
  }
};

template <class T>
struct SquaredDifference {
  const T* x;
  const T* y;
  Vec<T> operator()(int64_t i, Vec<T> s) const {
    const Vec<T> v = load(x + i) - load(y + i);
    return s + v * v;
  }
  Vec<T> partial(int64_t i, int64_t n, Vec<T> s) const {
    const Vec<T> v = load_partial(x + i, n, T(0)) - load_partial(y + i, n, T(0));
    return s + v * v;
  }
};

}  // namespace

#define PYREID_DEFINE_ROWS(T)                                                     \
  T squared_norm(const T* x, int64_t n) { return sum_terms<T>(n, Square<T>{x}); } \
  T squared_distance(const T* x, const T* y, int64_t n) { return sum_terms<T>(n, SquaredDifference<T>{x, y}); }

PYREID_DEFINE_ROWS(float)
PYREID_DEFINE_ROWS(double)

}  // namespace pyreid::cpu::PYREID_ISA
