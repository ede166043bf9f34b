#include "csrc/cpu/simd/gate_and_pool.h"

#include "csrc/cpu/simd/each_vector.h"
#include "csrc/cpu/simd/math.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

template <class T>
struct Sigmoid {
  Vec<T> value, complement;  // 1 - value, with all its digits
};

template <class T>
inline Sigmoid<T> sigmoid(Vec<T> x) {
  const auto positive = x > T(0);
  const Vec<T> power = exp_nonpositive<T>(positive ? -x : x);  // at most 1, or NaN
  const Vec<T> larger = T(1) / (T(1) + power), smaller = power * larger;
  return {positive ? larger : smaller, positive ? smaller : larger};
}

// The largest value so far and the first place that has it; NaN is larger than everything.
template <class T>
struct Top {
  T value;
  int64_t place;

  void meet(T other, int64_t other_place) {
    const bool nan = other != other, was_nan = value != value;
    const bool same = other == value || (nan && was_nan);
    if (same ? other_place < place : nan || (!was_nan && other > value)) {
      value = other;
      place = other_place;
    }
  }
};

template <class S, class T = Compute<S>>
void row_impl(const S* x, const S* gate, int64_t n, S* local, S* avg, S* largest, int64_t* index) {
  // Each lane adds up to 64 terms before it goes into the total: the rounding error does not grow with the row. Places
  // within a chunk fit the integers that are as wide as T.
  constexpr int64_t kChunk = 64 * kLanes<T>;
  double total = 0;
  Top<T> top{T(-1), n};  // below every value
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = n - begin < kChunk ? n : begin + kChunk;
    Vec<T> sums{}, best = broadcast(top.value);
    IntVec<T> where{};  // 0 while a lane has met nothing above `top`, else 1 or more: the last vector may reach back
    const int64_t origin = begin - kLanes<T>;
    each_vector<T>(begin, end, [=, &sums, &best, &where](auto place) {
      const Vec<T> product = sigmoid<T>(place.load(gate)).value * place.load(x);
      const Vec<T> v = product <= T(0) ? Vec<T>{} : product;  // keeps NaN
      place.store(local, v);
      sums += place.fresh(v);
      // Lanes that repeat others do no harm, nor do those behind the row: they hold 0, at a place that is not the
      // first.
      const auto better = (v > best) | ((v != v) & (best == best));
      best = better ? v : best;
      where = better ? lane_numbers<T>() + static_cast<Int<T>>(place.i - origin) : where;
    });
    total += static_cast<double>(sum_lanes<T>(sums));
    if (sum_lanes<Int<T>>(where != 0) == 0) continue;
    for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
      if (where[lane] != 0) top.meet(best[lane], origin + where[lane]);
    }
  }
  store_some(largest, broadcast(top.value), 1);
  store_some(avg, broadcast(static_cast<T>(total / static_cast<double>(n))), 1);
  *index = top.place;
}

template <class S, class T = Compute<S>>
void gradient_row_impl(const S* dlocal, const S* davg, const S* dlargest, const S* x, const S* gate, int64_t count,
                       int64_t n, S* dx, S* dgate) {
  T pooled = davg == nullptr ? T(0) : load_some(davg, 1)[0] / static_cast<T>(n);
  if (dlargest != nullptr) pooled += load_some(dlargest, 1)[0];
  each_vector<T>(0, count, [=](auto place) {
    const Vec<T> value = place.load(x);
    const Sigmoid<T> s = sigmoid<T>(place.load(gate));
    Vec<T> g = broadcast(pooled);
    if (dlocal != nullptr) g += place.load(dlocal);
    g = (s.value * value <= T(0) ? Vec<T>{} : g) * s.value;
    if (dx != nullptr) place.store(dx, g);
    if (dgate != nullptr) place.store(dgate, (s.value * value <= T(0) ? Vec<T>{} : g * value * s.complement));
  });
}

}  // namespace

#define PYREID_DEFINE_GATE(S)                                                                                         \
  void gate_row(const S* x, const S* gate, int64_t n, S* local, S* avg, S* largest, int64_t* index) {                 \
    row_impl(x, gate, n, local, avg, largest, index);                                                                 \
  }                                                                                                                   \
  void gate_gradient_row(const S* dlocal, const S* davg, const S* dlargest, const S* x, const S* gate, int64_t count, \
                         int64_t n, S* dx, S* dgate) {                                                                \
    gradient_row_impl(dlocal, davg, dlargest, x, gate, count, n, dx, dgate);                                          \
  }

PYREID_DEFINE_GATE(float)
PYREID_DEFINE_GATE(double)
PYREID_DEFINE_GATE(Half)
PYREID_DEFINE_GATE(BFloat16)
#undef PYREID_DEFINE_GATE

}  // namespace pyreid::cpu::PYREID_ISA
