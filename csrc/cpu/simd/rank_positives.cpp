#include "csrc/cpu/simd/rank_positives.h"

#include "csrc/cpu/simd/rank_value.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

template <class T>
struct IntOf;
template <>
struct IntOf<float> {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};
// The lanes of a comparison: 0 where it is false, -1 where it is true. Counters subtract them.
template <class T>
using Mask = Vec<typename IntOf<T>::type>;

template <class T>
inline int64_t total_of(Mask<T> counter) {
  return sum_lanes<typename IntOf<T>::type>(counter);
}

template <Source kSource, class T>
int64_t rank_values_from(const T* values, const T* column, int64_t n, T* out) {
  constexpr int64_t kStep = kLanes<T>;
  Mask<T> nans{};
  int64_t j = 0;
  for (; j + kStep <= n; j += kStep) {
    const Vec<T> v = rank_value<kSource>(load(values + j), load((kSource == Source::kGiven ? values : column) + j));
    nans -= v != v;
    store(out + j, v);
  }
  int64_t total = total_of<T>(nans);
  for (; j < n; ++j) {
    const T v = rank_value<kSource>(values[j], (kSource == Source::kGiven ? values : column)[j]);
    total += v != v;
    out[j] = v;
  }
  return total;
}

template <class T>
int64_t rank_values_impl(const T* values, const T* offset, const T* scale, int64_t n, T* out) {
  if (offset) return rank_values_from<Source::kOffset>(values, offset, n, out);
  if (scale) return rank_values_from<Source::kScale>(values, scale, n, out);
  return rank_values_from<Source::kGiven>(values, scale, n, out);
}

// kCount thresholds and their counters stay in registers while the values stream past from the cache.
template <int kCount, bool kOrEqual, class T>
void count_group(const T* values, int64_t n, const T* thresholds, int64_t* below) {
  Vec<T> limit[kCount];
  Mask<T> counter[kCount];
  for (int p = 0; p < kCount; ++p) {
    limit[p] = broadcast(thresholds[p]);
    counter[p] = Mask<T>{};
  }
  for (int64_t j = 0; j < n; j += kLanes<T>) {
    const Vec<T> v = load(values + j);
    for (int p = 0; p < kCount; ++p) {
      const Mask<T> hit = kOrEqual ? v <= limit[p] : v < limit[p];
#ifdef __AVX512F__
      counter[p] = hit ? counter[p] + 1 : counter[p];  // one masked addition, where a mask is no vector
#else
      counter[p] -= hit;
#endif
    }
  }
  for (int p = 0; p < kCount; ++p) below[p] += total_of<T>(counter[p]);
}

template <bool kOrEqual, class T>
void count_groups(const T* values, int64_t n, const T* thresholds, int64_t count, int64_t* below) {
  int64_t p = 0;
  for (; p + 6 <= count; p += 6) count_group<6, kOrEqual>(values, n, thresholds + p, below + p);
  if (p + 4 <= count) {
    count_group<4, kOrEqual>(values, n, thresholds + p, below + p);
    p += 4;
  }
  if (p + 2 <= count) {
    count_group<2, kOrEqual>(values, n, thresholds + p, below + p);
    p += 2;
  }
  if (p < count) count_group<1, kOrEqual>(values, n, thresholds + p, below + p);
}

// Binary searches without branches, several side by side: each waits for its loads, together they fill the pipeline.
template <class T>
void search_thresholds_impl(const T* values, int64_t n, const T* thresholds, int64_t count, int64_t* at) {
  constexpr int kTogether = 8;
  for (int64_t j = 0; j < n; j += kTogether) {
    int64_t first[kTogether] = {};
    for (int64_t length = count; length > 0;) {
      const int64_t half = (length + 1) / 2;
      for (int k = 0; k < kTogether; ++k) {
        const bool after = !(values[j + k] < thresholds[first[k] + half - 1]);  // also NaN
        first[k] += half & -static_cast<int64_t>(after);
      }
      length -= half;
    }
    for (int k = 0; k < kTogether; ++k) at[j + k] = first[k];
  }
}

template <class T>
int64_t count_equal_impl(const T* values, int64_t n, T x) {
  const Vec<T> wanted = broadcast(x);
  Mask<T> counter{};
  int64_t j = 0;
  for (; j + kLanes<T> <= n; j += kLanes<T>) counter -= load(values + j) == wanted;
  int64_t total = total_of<T>(counter);
  for (; j < n; ++j) total += values[j] == x;
  return total;
}

}  // namespace

#define PYREID_DEFINE_RANK_POSITIVES(T)                                                                             \
  int64_t rank_values(const T* values, const T* offset, const T* scale, int64_t n, T* out) {                        \
    return rank_values_impl(values, offset, scale, n, out);                                                         \
  }                                                                                                                 \
  void count_below(const T* values, int64_t n, const T* thresholds, int64_t count, bool or_equal, int64_t* below) { \
    or_equal ? count_groups<true>(values, n, thresholds, count, below)                                              \
             : count_groups<false>(values, n, thresholds, count, below);                                            \
  }                                                                                                                 \
  void search_thresholds(const T* values, int64_t n, const T* thresholds, int64_t count, int64_t* at) {             \
    search_thresholds_impl(values, n, thresholds, count, at);                                                       \
  }                                                                                                                 \
  int64_t count_equal(const T* values, int64_t n, T x) { return count_equal_impl(values, n, x); }

PYREID_DEFINE_RANK_POSITIVES(float)
PYREID_DEFINE_RANK_POSITIVES(double)

}  // namespace pyreid::cpu::PYREID_ISA
