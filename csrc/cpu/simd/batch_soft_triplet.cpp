#include "csrc/cpu/simd/batch_soft_triplet.h"

#include "csrc/cpu/simd/math.h"
#include "csrc/cpu/simd/transpose.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// Walks along an anchor's row: body(j, n, positive, negative) for the n <= kLanes columns from j on, with masks of the
// lanes that hold a positive and a negative.
template <class T, class Body>
inline void for_each_vector(const Int<T>* identities, int64_t i, int64_t b, Body body) {
  constexpr int64_t kStep = kLanes<T>;
  IntVec<T> at{};
  for (int64_t lane = 0; lane < kStep; ++lane) at[lane] = static_cast<Int<T>>(lane);
  const Int<T> identity = identities[i], anchor = static_cast<Int<T>>(i);
  int64_t j = 0;
  for (; j + kStep <= b; j += kStep) {
    const IntVec<T> same = load(identities + j) == identity;
    body(j, kStep, same & (at != anchor), ~same);
    at += static_cast<Int<T>>(kStep);
  }
  if (j < b) {
    // Identities are not negative: the lanes past the end have none in common with the anchor.
    const IntVec<T> same = load_partial(identities + j, b - j, Int<T>(-1)) == identity;
    body(j, b - j, same & (at != anchor), ~same & (at < static_cast<Int<T>>(b)));
  }
}

template <class T>
void weighted_means_impl(T* row, const Int<T>* identities, int64_t i, int64_t b, T* exponentials,
                         WeightedMean<T>* positive, WeightedMean<T>* negative) {
  for (int64_t j = 0; j < b; ++j) row[j] = root(row[j]);

  // NaN is not looked for here: it comes back in the sums.
  Vec<T> farthest = broadcast(static_cast<T>(-__builtin_inff())), nearest = farthest;
  for_each_vector<T>(identities, i, b, [&](int64_t j, int64_t n, IntVec<T> positives, IntVec<T> negatives) {
    const Vec<T> d = load_up_to(row + j, n);
    farthest = positives & (d > farthest) ? d : farthest;
    nearest = negatives & (-d > nearest) ? -d : nearest;
  });
  positive->shift = max_lanes<T>(farthest);
  negative->shift = -max_lanes<T>(nearest);

  const Vec<T> zero{}, farthest_all = broadcast(positive->shift), nearest_all = broadcast(negative->shift);
  Vec<T> positive_total{}, positive_sum{}, negative_total{}, negative_sum{};
  for_each_vector<T>(identities, i, b, [&](int64_t j, int64_t n, IntVec<T> positives, IntVec<T> negatives) {
    const Vec<T> relative = load_up_to(row + j, n) - (positives ? farthest_all : nearest_all);
    const Vec<T> e = (positives | negatives) ? exp_nonpositive<T>(positives ? relative : -relative) : zero;
    const Vec<T> product = (positives | negatives) ? e * relative : zero;
    positive_total += positives ? e : zero;
    positive_sum += positives ? product : zero;
    negative_total += negatives ? e : zero;
    negative_sum += negatives ? product : zero;
    store_up_to(exponentials + j, e, n);
  });
  positive->total = sum_lanes<T>(positive_total);
  negative->total = sum_lanes<T>(negative_total);
  positive->mean = sum_lanes<T>(positive_sum) / positive->total;
  negative->mean = sum_lanes<T>(negative_sum) / negative->total;
}

template <class T>
void mean_gradients_impl(const T* distances, const Int<T>* identities, int64_t i, int64_t b,
                         const WeightedMean<T>& positive, const WeightedMean<T>& negative, T* exponentials) {
  const Vec<T> zero{}, one = broadcast(T(1));
  const Vec<T> positive_scale = broadcast(T(1) / positive.total), negative_scale = broadcast(T(-1) / negative.total);
  for_each_vector<T>(identities, i, b, [&](int64_t j, int64_t n, IntVec<T> positives, IntVec<T> negatives) {
    const Vec<T> d = load_up_to(distances + j, n), e = load_up_to(exponentials + j, n);
    // Of a mean with weights softmax(+-d): w_j (1 +- (d_j - mean)).
    const Vec<T> off_mean = positives ? (d - positive.shift) - positive.mean : negative.mean - (d - negative.shift);
    const Vec<T> gradient = e * (positives ? positive_scale : negative_scale) * (one + off_mean);
    const IntVec<T> counts = (positives | negatives) & ~(d == zero);
    store_up_to(exponentials + j, counts ? gradient / d : zero, n);
  });
}

template <class T>
void pair_weights_impl(const T* weights, const T* grads, int64_t first, int64_t last, int64_t b, T* sums) {
  constexpr int64_t kStep = kLanes<T>;
  for (int64_t i0 = first; i0 < last; i0 += kStep) {
    const int64_t rows = last - i0 < kStep ? last - i0 : kStep;
    for (int64_t j0 = 0; j0 < b; j0 += kStep) {
      const int64_t columns = b - j0 < kStep ? b - j0 : kStep;
      const Vec<T> column_grads = load_up_to(grads + j0, columns);
      Vec<T> others[kStep];
#pragma GCC unroll 16
      for (int64_t j = 0; j < kStep; ++j) {
        others[j] = j < columns ? load_up_to(weights + (j0 + j) * b + i0, rows) : Vec<T>{};
      }
      transpose<T>(others);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kStep; ++i) {
        if (i >= rows) break;
        const int64_t at = (i0 + i) * b + j0;
        store_up_to(sums + at, grads[i0 + i] * load_up_to(weights + at, columns) + column_grads * others[i], columns);
      }
    }
  }
}

// In registers: kRows x kColumns sums, kColumns of the other row, a weight and a difference; with the 32 registers of
// AVX-512 the kRows x kColumns own features too. At least 8 sums hide the latency of the multiply-add.
constexpr int64_t kRows = 4;
constexpr int64_t kColumns = PYREID_VECTOR_BYTES == 64 ? 3 : 2;
// The strip of so many other rows stays in the first-level cache.
constexpr int64_t kPanelRows = 128;

// `packed` holds the columns of the other rows, one row after the other.
template <int64_t kTileRows, int64_t kTileColumns, class T, class Load, class Store>
inline __attribute__((always_inline)) void tile(const T* x, const Vec<T>* packed, int64_t others, int64_t d,
                                                const T* weights, int64_t b, bool first, T* out, Load load_at,
                                                Store store_at) {
  Vec<T> own[kTileRows][kTileColumns], sums[kTileRows][kTileColumns];
#pragma GCC unroll 4
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int64_t c = 0; c < kTileColumns; ++c) {
      own[i][c] = load_at(x + i * d + c * kLanes<T>);
      sums[i][c] = first ? Vec<T>{} : load_at(out + i * d + c * kLanes<T>);
    }
  }
  for (int64_t j = 0; j < others; ++j) {
    Vec<T> other[kTileColumns];
#pragma GCC unroll 4
    for (int64_t c = 0; c < kTileColumns; ++c) other[c] = packed[j * kTileColumns + c];
#pragma GCC unroll 4
    for (int64_t i = 0; i < kTileRows; ++i) {
      const T weight = weights[i * b + j];
#pragma GCC unroll 4
      for (int64_t c = 0; c < kTileColumns; ++c) sums[i][c] += weight * (own[i][c] - other[c]);
    }
  }
#pragma GCC unroll 4
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int64_t c = 0; c < kTileColumns; ++c) store_at(out + i * d + c * kLanes<T>, sums[i][c]);
  }
}

// kTileColumns vectors of columns. The rows are often a power of two apart and would push each other out of the
// first-level cache: the other rows are packed first.
template <int64_t kTileColumns, class T, class Load, class Store>
inline void strip(const T* x, const T* weights, int64_t first, int64_t last, int64_t b, int64_t d, T* out, Load load_at,
                  Store store_at) {
  Vec<T> packed[kPanelRows * kTileColumns];
  for (int64_t j0 = 0; j0 < b; j0 += kPanelRows) {
    const int64_t others = b - j0 < kPanelRows ? b - j0 : kPanelRows;
    for (int64_t j = 0; j < others; ++j) {
#pragma GCC unroll 4
      for (int64_t c = 0; c < kTileColumns; ++c)
        packed[j * kTileColumns + c] = load_at(x + (j0 + j) * d + c * kLanes<T>);
    }
    const auto rows = [&]<int64_t kTileRows>(int64_t i) __attribute__((always_inline)) {
      tile<kTileRows, kTileColumns>(x + i * d, packed, others, d, weights + i * b + j0, b, j0 == 0, out + i * d,
                                    load_at, store_at);
    };
    int64_t i = first;
    for (; i + kRows <= last; i += kRows) rows.template operator()<kRows>(i);
    for (; i < last; ++i) rows.template operator()<1>(i);
  }
}

template <class T>
void weighted_difference_sums_impl(const T* x, const T* weights, int64_t first, int64_t last, int64_t begin,
                                   int64_t end, int64_t b, int64_t d, T* out) {
  constexpr int64_t kStep = kLanes<T>;
  const auto load_all = [](const T* p) __attribute__((always_inline)) { return load(p); };
  const auto store_all = [](T* p, Vec<T> v) __attribute__((always_inline)) { store(p, v); };
  int64_t k = begin;
  for (; k + kColumns * kStep <= end; k += kColumns * kStep) {
    strip<kColumns>(x + k, weights, first, last, b, d, out + k, load_all, store_all);
  }
  if constexpr (kColumns > 2) {
    for (; k + 2 * kStep <= end; k += 2 * kStep) {
      strip<2>(x + k, weights, first, last, b, d, out + k, load_all, store_all);
    }
  }
  for (; k + kStep <= end; k += kStep) strip<1>(x + k, weights, first, last, b, d, out + k, load_all, store_all);
  if (k < end) {
    const int64_t rest = end - k;
    strip<1>(
        x + k, weights, first, last, b, d, out + k, [rest](const T* p) { return load_partial(p, rest, T(0)); },
        [rest](T* p, Vec<T> v) { store_partial(p, v, rest); });
  }
}

}  // namespace

#define PYREID_DEFINE_SOFT_TRIPLET(T, Int)                                                                             \
  void weighted_means(T* row, const Int* identities, int64_t i, int64_t b, T* exponentials, WeightedMean<T>* positive, \
                      WeightedMean<T>* negative) {                                                                     \
    weighted_means_impl(row, identities, i, b, exponentials, positive, negative);                                      \
  }                                                                                                                    \
  void mean_gradients(const T* distances, const Int* identities, int64_t i, int64_t b,                                 \
                      const WeightedMean<T>& positive, const WeightedMean<T>& negative, T* exponentials) {             \
    mean_gradients_impl(distances, identities, i, b, positive, negative, exponentials);                                \
  }                                                                                                                    \
  void pair_weights(const T* weights, const T* grads, int64_t first, int64_t last, int64_t b, T* sums) {               \
    pair_weights_impl(weights, grads, first, last, b, sums);                                                           \
  }                                                                                                                    \
  void weighted_difference_sums(const T* x, const T* weights, int64_t first, int64_t last, int64_t begin, int64_t end, \
                                int64_t b, int64_t d, T* out) {                                                        \
    weighted_difference_sums_impl(x, weights, first, last, begin, end, b, d, out);                                     \
  }

PYREID_DEFINE_SOFT_TRIPLET(float, int32_t)
PYREID_DEFINE_SOFT_TRIPLET(double, int64_t)

}  // namespace pyreid::cpu::PYREID_ISA
