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

template <class T>
struct SquaredDifferenceToMultiple {
  const T* x;
  const T* y;
  Vec<T> ratio;
  Vec<T> operator()(int64_t i, Vec<T> s) const {
    const Vec<T> v = load(x + i) - ratio * load(y + i);
    return s + v * v;
  }
  Vec<T> partial(int64_t i, int64_t n, Vec<T> s) const {
    const Vec<T> v = load_partial(x + i, n, T(0)) - ratio * load_partial(y + i, n, T(0));
    return s + v * v;
  }
};

template <class T>
void add_weighted_difference_impl(T* out, const T* x, const T* y, T weight, T scale, int64_t n) {
  const Vec<T> w = broadcast(weight), s = broadcast(scale);
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) store(out + i, load(out + i) + w * (s * load(x + i) - load(y + i)));
  if (i < n) {
    const int64_t rest = n - i;
    const Vec<T> difference = s * load_partial(x + i, rest, T(0)) - load_partial(y + i, rest, T(0));
    store_partial(out + i, load_partial(out + i, rest, T(0)) + w * difference, rest);
  }
}

}  // namespace

#define PYREID_DEFINE_ROWS(T)                                                                                   \
  T squared_norm(const T* x, int64_t n) { return sum_terms<T>(n, Square<T>{x}); }                               \
  T squared_distance(const T* x, const T* y, int64_t n) { return sum_terms<T>(n, SquaredDifference<T>{x, y}); } \
  T squared_distance_to_multiple(const T* x, const T* y, T ratio, int64_t n) {                                  \
    return sum_terms<T>(n, SquaredDifferenceToMultiple<T>{x, y, broadcast(ratio)});                             \
  }                                                                                                             \
  void add_weighted_difference(T* out, const T* x, const T* y, T weight, T scale, int64_t n) {                  \
    add_weighted_difference_impl(out, x, y, weight, scale, n);                                                  \
  }

PYREID_DEFINE_ROWS(float)
PYREID_DEFINE_ROWS(double)

}  // namespace pyreid::cpu::PYREID_ISA
