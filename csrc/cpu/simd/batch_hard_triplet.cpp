#include "csrc/cpu/simd/batch_hard_triplet.h"

#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// The largest value of each lane and its index, -1 before there is one. NaN, once met, stays.
template <class T>
struct Largest {
  Vec<T> value{};
  IntVec<T> index = IntVec<T>{} - 1;

  void add(Vec<T> v, IntVec<T> at, IntVec<T> mask) {
    const IntVec<T> better = mask & ((index < 0) | (~(v <= value) & (value == value)));
    value = better ? v : value;
    index = better ? at : index;
  }

  // Of all lanes: NaN before numbers, then the largest, then the lowest index.
  int32_t best() const {
    int64_t found = -1;
    T largest = 0;
    for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
      if (index[lane] < 0) continue;
      const bool lane_nan = value[lane] != value[lane], found_nan = largest != largest;
      const bool better = found < 0 || (lane_nan && !found_nan) || (!found_nan && value[lane] > largest);
      const bool equal = (lane_nan && found_nan) || value[lane] == largest;
      if (better || (equal && index[lane] < found)) {
        found = index[lane];
        largest = value[lane];
      }
    }
    return static_cast<int32_t>(found);
  }
};

template <class T>
void hardest_pair_impl(const T* squared, const Int<T>* identities, int64_t i, int64_t b, int32_t* positive,
                       int32_t* negative) {
  constexpr int64_t kStep = kLanes<T>;
  Largest<T> farthest, nearest;  // nearest: the largest of the negated
  IntVec<T> at{};
  for (int64_t lane = 0; lane < kStep; ++lane) at[lane] = static_cast<Int<T>>(lane);
  const Int<T> identity = identities[i], anchor = static_cast<Int<T>>(i), end = static_cast<Int<T>>(b);
  const auto add = [&](Vec<T> v, IntVec<T> ids) {
    const IntVec<T> same = ids == identity;
    farthest.add(v, at, same & (at != anchor));
    nearest.add(-v, at, ~same & (at < end));
    at += static_cast<Int<T>>(kStep);
  };
  int64_t j = 0;
  for (; j + kStep <= b; j += kStep) add(load(squared + j), load(identities + j));
  // Identities are not negative: the lanes past the end have none in common with the anchor.
  if (j < b) add(load_partial(squared + j, b - j, T(0)), load_partial(identities + j, b - j, Int<T>(-1)));
  *positive = farthest.best();
  *negative = nearest.best();
}

// kVectors vectors of columns from k on; `load_at` and `store_at` move one vector.
template <int kVectors, class T, class Load, class Store>
inline void columns(const T* x, int64_t d, int64_t i, const int32_t* others, const T* weights, int64_t count, int64_t k,
                    T* out, Load load_at, Store store_at) {
  Vec<T> own[kVectors], sums[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    own[v] = load_at(x + i * d + k + v * kLanes<T>);
    sums[v] = Vec<T>{};
  }
  for (int64_t e = 0; e < count; ++e) {
    const T* other = x + others[e] * d + k;
    for (int v = 0; v < kVectors; ++v) sums[v] += weights[e] * (own[v] - load_at(other + v * kLanes<T>));
  }
  for (int v = 0; v < kVectors; ++v) store_at(out + k + v * kLanes<T>, sums[v]);
}

template <class T>
void weighted_differences_impl(const T* x, int64_t d, int64_t i, const int32_t* others, const T* weights, int64_t count,
                               T* out) {
  constexpr int kVectors = 4;
  constexpr int64_t kStep = kLanes<T>;
  const auto load_all = [](const T* p) { return load(p); };
  const auto store_all = [](T* p, Vec<T> v) { store(p, v); };
  int64_t k = 0;
  for (; k + kVectors * kStep <= d; k += kVectors * kStep) {
    columns<kVectors>(x, d, i, others, weights, count, k, out, load_all, store_all);
  }
  for (; k + kStep <= d; k += kStep) columns<1>(x, d, i, others, weights, count, k, out, load_all, store_all);
  if (k < d) {
    const int64_t rest = d - k;
    columns<1>(
        x, d, i, others, weights, count, k, out, [rest](const T* p) { return load_partial(p, rest, T(0)); },
        [rest](T* p, Vec<T> v) { store_partial(p, v, rest); });
  }
}

}  // namespace

#define PYREID_DEFINE_HARD_TRIPLET(T, Int)                                                                            \
  void hardest_pair(const T* squared, const Int* identities, int64_t i, int64_t b, int32_t* positive,                 \
                    int32_t* negative) {                                                                              \
    hardest_pair_impl(squared, identities, i, b, positive, negative);                                                 \
  }                                                                                                                   \
  void weighted_differences(const T* x, int64_t d, int64_t i, const int32_t* others, const T* weights, int64_t count, \
                            T* out) {                                                                                 \
    weighted_differences_impl(x, d, i, others, weights, count, out);                                                  \
  }

PYREID_DEFINE_HARD_TRIPLET(float, int32_t)
PYREID_DEFINE_HARD_TRIPLET(double, int64_t)

}  // namespace pyreid::cpu::PYREID_ISA
