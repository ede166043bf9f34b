#include "csrc/cpu/simd/gem_pool.h"

#include "csrc/cpu/simd/each_vector.h"
#include "csrc/cpu/simd/half.h"
#include "csrc/cpu/simd/math.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

template <class T>
inline Vec<T> larger_or_nan(Vec<T> best, Vec<T> v) {
  return ((v > best) | (v != v)) ? v : best;
}

// Positive numbers are ordered as their bits are, and integers have a maximum in one instruction. NaN may be lost.
template <class T>
inline Vec<T> larger_positive(Vec<T> a, Vec<T> b) {
  const IntVec<T> x = reinterpret_cast<IntVec<T>>(a), y = reinterpret_cast<IntVec<T>>(b);
  return reinterpret_cast<Vec<T>>(x > y ? x : y);
}

// The largest lane, by halves as sum_lanes. Of positive numbers.
template <class I, int64_t kWidth>
struct Largest {
  typedef I Whole __attribute__((vector_size(kWidth * sizeof(I))));
  typedef I Half __attribute__((vector_size(kWidth / 2 * sizeof(I))));
  static I of(Whole v) {
    Half low, high;
    memcpy(&low, &v, sizeof(low));
    memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof(low), sizeof(high));
    return Largest<I, kWidth / 2>::of(low > high ? low : high);
  }
};
template <class I>
struct Largest<I, 2> {
  typedef I Whole __attribute__((vector_size(2 * sizeof(I))));
  static I of(Whole v) { return v[0] > v[1] ? v[0] : v[1]; }
};
template <class T>
inline T largest_positive_lane(Vec<T> v) {
  const Int<T> bits = Largest<Int<T>, kLanes<T>>::of(reinterpret_cast<IntVec<T>>(v));
  T value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// Keeps NaN.
template <class T>
inline Vec<T> clamp_from_below(Vec<T> x, T eps) {
  const Vec<T> least = broadcast(eps);
  return x < least ? least : x;
}

template <int kPower, class T>
inline Vec<T> integer_power(Vec<T> u) {
  if constexpr (kPower == 0) return broadcast(T(1));
  if constexpr (kPower == 1) return u;
  if constexpr (kPower == 2) return u * u;
  if constexpr (kPower == 3) return u * u * u;
}

// log2(v / largest) without a division: both are scaled by the power of two that brings `largest` into [1, 2), which is
// exact, and the logarithm of what `largest` becomes is subtracted. It is exactly 0 for `largest` itself.
template <class T>
struct LogRatio {
  Vec<T> scale, offset;
  explicit LogRatio(Vec<T> largest) {
    using Format = FloatFormat<T>;
    using Bits = Vec<typename Format::Bits>;
    const Bits biased = reinterpret_cast<Bits>(largest) >> Format::kMantissaBits;
    scale = reinterpret_cast<Vec<T>>((2 * Format::kBias - biased) << Format::kMantissaBits);
    offset = log2<T>(largest * scale);
  }
  // in place
  template <int kCount>
  void of_each(Vec<T> (&v)[kCount]) const {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) v[i] *= scale;
    log2_of_each<T>(v);
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) v[i] -= offset;
  }
};

// Each lane adds up to 64 terms before it goes into the total: the rounding error does not grow with the row.
template <class T>
constexpr int64_t kChunk = 64 * kLanes<T>;

template <class S, class T>
void largest_impl(const S* x, int64_t rows, int64_t n, T eps, T* largest) {
  for (int64_t r = 0; r < rows; ++r) {
    Vec<T> best = broadcast(eps);
    IntVec<T> is_nan{};
    each_vector<T>(0, n, [&](auto place) {
      const Vec<T> v = place.load(x + r * n);
      best = larger_positive<T>(best, v);  // of numbers below 0 any other is larger, too
      is_nan |= v != v;
    });
    best = is_nan ? broadcast(static_cast<T>(__builtin_nan(""))) : best;  // larger than infinity
    largest[r] = largest_positive_lane<T>(best);
  }
}

template <int kPower, class S, class T>
void plain_sums_impl(const S* x, int64_t rows, int64_t n, T eps, T* largest, double* sum) {
  for (int64_t r = 0; r < rows; ++r) {
    const S* row = x + r * n;
    Vec<T> best = broadcast(eps);
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += kChunk<T>) {
      const int64_t end = n - begin < kChunk<T> ? n : begin + kChunk<T>;
      Vec<T> sums{}, more_sums{};
      int64_t i = begin;
      for (; i + 2 * kLanes<T> <= end; i += 2 * kLanes<T>) {
        Vec<T> v, w;
        load_two(row + i, &v, &w);
        v = clamp_from_below<T>(v, eps);
        w = clamp_from_below<T>(w, eps);
        best = larger_positive<T>(best, larger_positive<T>(v, w));
        sums += integer_power<kPower, T>(v);
        more_sums += integer_power<kPower, T>(w);
      }
      each_vector<T>(i, end, [&](auto place) {
        const Vec<T> v = clamp_from_below<T>(place.load(row), eps);
        best = larger_positive<T>(best, v);
        sums += place.fresh(integer_power<kPower, T>(v));
      });
      total += static_cast<double>(sum_lanes<T>(sums + more_sums));
    }
    largest[r] = largest_positive_lane<T>(best);
    sum[r] = total;
  }
}

// Logarithms and powers are taken of so many vectors side by side.
constexpr int kSideBySide = 4;

template <int kCount>
struct Count {};

// Calls body(places) for the vectors of a row as each_vector does, with an array of them: kSideBySide or 2 where there
// are so many.
template <class T, class Body>
inline void each_few_vectors(int64_t begin, int64_t end, Body body) {
  int64_t i = begin;
  const auto take = [&]<int kCount>(Count<kCount>) {
    for (; i + kCount * kLanes<T> <= end; i += kCount * kLanes<T>) {
      WholeVector<T> places[kCount];
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) places[k].i = i + k * kLanes<T>;
      body(places);
    }
  };
  take(Count<kSideBySide>{});
  take(Count<2>{});
  each_vector<T>(i, end, [&]<class Place>(Place place) {
    const Place places[] = {place};
    body(places);
  });
}

template <bool kLog, class S, class T>
void power_sums_impl(const S* x, int64_t n, T largest, T p, T eps, double* sum, double* log_sum) {
  const LogRatio<T> ratio(broadcast(largest));
  const Vec<T> exponent = broadcast(p);
  double total = 0, log_total = 0;
  for (int64_t begin = 0; begin < n; begin += kChunk<T>) {
    const int64_t end = n - begin < kChunk<T> ? n : begin + kChunk<T>;
    Vec<T> sums{}, log_sums{};
    each_few_vectors<T>(begin, end, [&]<class Place, size_t kCount>(const Place(&places)[kCount]) {
      Vec<T> log[kCount], power[kCount];
#pragma GCC unroll 4
      for (size_t k = 0; k < kCount; ++k) log[k] = clamp_from_below<T>(places[k].load(x), eps);
      ratio.of_each(log);
#pragma GCC unroll 4
      for (size_t k = 0; k < kCount; ++k) power[k] = exponent * log[k];
      exp2_of_each<T>(power);
#pragma GCC unroll 4
      for (size_t k = 0; k < kCount; ++k) {
        power[k] = places[k].fresh(power[k]);
        sums += power[k];
        if constexpr (kLog) log_sums += power[k] * log[k];
      }
    });
    total += static_cast<double>(sum_lanes<T>(sums));
    if constexpr (kLog) log_total += static_cast<double>(sum_lanes<T>(log_sums));
  }
  *sum = total;
  if constexpr (kLog) *log_sum = log_total;
}

// kPower is p - 1 here
template <int kPower, class S, class T>
void plain_gradient_impl(const S* x, int64_t rows, int64_t n, const T* inverse, T eps, const T* scale, S* dx) {
  for (int64_t r = 0; r < rows; ++r) {
    const S* row = x + r * n;
    S* out = dx + r * n;
    const Vec<T> factor = broadcast(scale[r]), multiplier = broadcast(inverse[r]);
    const auto gradient = [&](Vec<T> v) -> Vec<T> {
      return v < eps ? Vec<T>{} : integer_power<kPower, T>(v * multiplier) * factor;
    };
    int64_t i = 0;
    for (; i + 2 * kLanes<T> <= n; i += 2 * kLanes<T>) {
      Vec<T> v, w;
      load_two(row + i, &v, &w);
      store_two(out + i, gradient(v), gradient(w));
    }
    each_vector<T>(i, n, [&](auto place) { place.store(out, gradient(place.load(row))); });
  }
}

// scale (v / largest)^exponent where v >= eps, else 0, into `out`, which holds v before
template <class T, size_t kCount>
inline void gradients(const LogRatio<T>& ratio, Vec<T> exponent, Vec<T> scale, T eps, const Vec<T> (&v)[kCount],
                      Vec<T> (&out)[kCount]) {
  ratio.of_each(out);  // whatever it is of values below eps
#pragma GCC unroll 4
  for (size_t k = 0; k < kCount; ++k) out[k] *= exponent;
  exp2_of_each<T>(out);
#pragma GCC unroll 4
  for (size_t k = 0; k < kCount; ++k) out[k] = v[k] < eps ? Vec<T>{} : out[k] * scale;
}

template <class S, class T>
void gradient_row_impl(const S* x, int64_t n, T largest, T p, T eps, T scale, S* dx) {
  const LogRatio<T> ratio(broadcast(largest));
  const Vec<T> exponent = broadcast(p - T(1)), factor = broadcast(scale);
  each_few_vectors<T>(0, n, [&]<class Place, size_t kCount>(const Place(&places)[kCount]) {
    Vec<T> v[kCount], power[kCount];
#pragma GCC unroll 4
    for (size_t k = 0; k < kCount; ++k) power[k] = v[k] = places[k].load(x);
    gradients(ratio, exponent, factor, eps, v, power);
#pragma GCC unroll 4
    for (size_t k = 0; k < kCount; ++k) places[k].store(dx, power[k]);
  });
}

// Columns: a vector holds neighbouring channels. x is read in the order in which it lies, but that kTogether positions
// are taken side by side: what has been summed of their channels is in registers meanwhile, else in memory (the
// first-level cache).
constexpr int64_t kTogether = 8;

template <int64_t kCount>
struct Positions {
  int64_t first;
};

// Calls body(positions) for all n, kMost at a time where there are so many.
template <int64_t kMost, class Body>
inline void each_positions(int64_t n, Body body) {
  int64_t position = 0;
  for (; position + kMost <= n; position += kMost) body(Positions<kMost>{position});
  for (; position < n; ++position) body(Positions<1>{position});
}

template <class S, class T>
void columns_largest_impl(const S* x, int64_t n, int64_t stride, int64_t count, T* largest) {
  each_positions<kTogether>(n, [&]<int64_t kCount>(Positions<kCount> positions) {
    const S* row = x + positions.first * stride;
    each_vector<T>(0, count, [&](auto place) {
      Vec<T> best = place.load(largest);
#pragma GCC unroll 8
      for (int64_t k = 0; k < kCount; ++k) best = larger_or_nan<T>(best, place.load(row + k * stride));
      place.store(largest, best);
    });
  });
}

template <int kPower, class S, class T>
void columns_plain_sums_impl(const S* x, int64_t n, int64_t stride, int64_t count, T eps, T* largest, T* sum) {
  each_positions<kTogether>(n, [&]<int64_t kCount>(Positions<kCount> positions) {
    const S* row = x + positions.first * stride;
    each_vector<T>(0, count, [&](auto place) {
      Vec<T> best = place.load(largest), sums{};
#pragma GCC unroll 8
      for (int64_t k = 0; k < kCount; ++k) {
        const Vec<T> v = clamp_from_below<T>(place.load(row + k * stride), eps);
        best = larger_positive<T>(best, v);
        sums += integer_power<kPower, T>(v);
      }
      place.store(largest, best);
      place.store(sum, place.load(sum) + place.fresh(sums));
    });
  });
}

// These lie in the second-level cache already, and take so much arithmetic that their order does not matter.
template <bool kLog, class S, class T>
void columns_power_sums_impl(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p, T eps,
                             T* sum, T* log_sum) {
  each_vector<T>(0, count, [&](auto place) {
    const LogRatio<T> ratio(place.load(largest));
    const Vec<T> exponent = place.load(p);
    Vec<T> sums{}, log_sums{};
    each_positions<kSideBySide>(n, [&]<int64_t kCount>(Positions<kCount> positions) {
      Vec<T> log[kCount], power[kCount];
#pragma GCC unroll 4
      for (int64_t k = 0; k < kCount; ++k) {
        log[k] = clamp_from_below<T>(place.load(x + (positions.first + k) * stride), eps);
      }
      ratio.of_each(log);
#pragma GCC unroll 4
      for (int64_t k = 0; k < kCount; ++k) power[k] = exponent * log[k];
      exp2_of_each<T>(power);
#pragma GCC unroll 4
      for (int64_t k = 0; k < kCount; ++k) {
        sums += power[k];
        if constexpr (kLog) log_sums += power[k] * log[k];
      }
    });
    place.store(sum, place.load(sum) + place.fresh(sums));
    if constexpr (kLog) place.store(log_sum, place.load(log_sum) + place.fresh(log_sums));
  });
}

// kPower is p - 1 here
template <int kPower, class S, class T>
void columns_plain_gradient_impl(const S* x, int64_t n, int64_t stride, int64_t count, const T* inverse, T eps,
                                 const T* scale, S* dx) {
  for (int64_t position = 0; position < n; ++position) {
    const S* row = x + position * stride;
    S* out = dx + position * stride;
    each_vector<T>(0, count, [&](auto place) {
      const Vec<T> v = place.load(row), power = integer_power<kPower, T>(v * place.load(inverse));
      place.store(out, v < eps ? Vec<T>{} : power * place.load(scale));
    });
  }
}

template <class S, class T>
void columns_gradient_impl(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p, T eps,
                           const T* scale, S* dx) {
  each_positions<kTogether>(n, [&]<int64_t kCount>(Positions<kCount> positions) {
    const S* row = x + positions.first * stride;
    S* out = dx + positions.first * stride;
    each_vector<T>(0, count, [&](auto place) {
      const LogRatio<T> ratio(place.load(largest));
      const Vec<T> exponent = place.load(p) - T(1), factor = place.load(scale);
      constexpr int64_t kStep = kCount < kSideBySide ? kCount : kSideBySide;
      for (int64_t begin = 0; begin < kCount; begin += kStep) {
        Vec<T> v[kStep], power[kStep];
#pragma GCC unroll 4
        for (int64_t k = 0; k < kStep; ++k) power[k] = v[k] = place.load(row + (begin + k) * stride);
        gradients(ratio, exponent, factor, eps, v, power);
#pragma GCC unroll 4
        for (int64_t k = 0; k < kStep; ++k) place.store(out + (begin + k) * stride, power[k]);
      }
    });
  });
}

template <class S, class T>
void load_impl(const S* x, int64_t n, T* values) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) store(values + i, load_values(x + i));
  if (i < n) store_partial(values + i, load_some(x + i, n - i), n - i);
}

template <class S, class T>
void store_impl(const T* values, int64_t n, S* x) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) store_values(x + i, load(values + i));
  if (i < n) store_some(x + i, load_partial(values + i, n - i, T(0)), n - i);
}

constexpr double kLn2 = 0x1.62e42fefa39efp-1;

// n <= kLanes<double> numbers as doubles, with ones in the other lanes; and back.
template <class T>
struct FewOf {
  typedef T type __attribute__((vector_size(PYREID_VECTOR_BYTES / 8 * sizeof(T))));
};
template <class T>
inline Vec<double> load_doubles(const T* p, int64_t n) {
  typename FewOf<T>::type few{};
  few += T(1);
  if (n == kLanes<double>) {
    memcpy(&few, p, sizeof(few));
  } else {
    memcpy(&few, p, static_cast<size_t>(n) * sizeof(T));
  }
  return __builtin_convertvector(few, Vec<double>);
}
template <class T>
inline void store_doubles(T* p, Vec<double> v, int64_t n) {
  const auto few = __builtin_convertvector(v, typename FewOf<T>::type);
  if (n == kLanes<double>) {
    memcpy(p, &few, sizeof(few));
  } else {
    memcpy(p, &few, static_cast<size_t>(n) * sizeof(T));
  }
}

// In double whatever T: 1 / p and the logarithm of the sum would lose digits, and rows are few.
template <class T>
void finish_impl(const T* largest, const double* sum, const T* unit, const double* log_sum, const T* p, int64_t rows,
                 int64_t n, T* pooled, T* factor, T* slope) {
  const double count = static_cast<double>(n);
  for (int64_t i = 0; i < rows; i += kLanes<double>) {
    const int64_t step = rows - i < kLanes<double> ? rows - i : kLanes<double>;
    const Vec<double> m = load_doubles(largest + i, step), q = load_doubles(p + i, step);
    const Vec<double> s = load_doubles(sum + i, step) / load_doubles(unit + i, step);
    const Vec<double> log_mean = s == s ? log2<double>(s / count) : s;
    const Vec<double> root = exp2<double>(log_mean / q), y = m * root;
    // A mean is at most m, whatever its rounding.
    store_doubles(pooled + i, y > m ? m : y, step);
    store_doubles(factor + i, root / s, step);
    if (slope == nullptr) continue;
    const Vec<double> l = load_doubles(log_sum + i, step);
    store_doubles(slope + i, y / q * kLn2 * (l / s - log_mean / q), step);
  }
}

// body(power) with the power as a constant
template <int kPower>
struct Power {};
template <class Body>
inline void with_power(int power, Body body) {
  if (power == 3) return body(Power<3>{});
  if (power == 2) return body(Power<2>{});
  body(Power<1>{});
}

}  // namespace

#define PYREID_DEFINE_GEM_ROW(S, T)                                                                                    \
  void gem_plain_sums(const S* x, int64_t rows, int64_t n, int power, T eps, T* largest, double* sum) {                \
    with_power(power, [&]<int kPower>(Power<kPower>) { plain_sums_impl<kPower>(x, rows, n, eps, largest, sum); });     \
  }                                                                                                                    \
  void gem_largest(const S* x, int64_t rows, int64_t n, T eps, T* largest) { largest_impl(x, rows, n, eps, largest); } \
  void gem_power_sums(const S* x, int64_t n, T largest, T p, T eps, double* sum, double* log_sum) {                    \
    if (log_sum != nullptr) return power_sums_impl<true>(x, n, largest, p, eps, sum, log_sum);                         \
    power_sums_impl<false>(x, n, largest, p, eps, sum, log_sum);                                                       \
  }                                                                                                                    \
  void gem_plain_gradient(const S* x, int64_t rows, int64_t n, const T* inverse, int power, T eps, const T* scale,     \
                          S* dx) {                                                                                     \
    with_power(power, [&]<int kPower>(Power<kPower>) {                                                                 \
      plain_gradient_impl<kPower - 1>(x, rows, n, inverse, eps, scale, dx);                                            \
    });                                                                                                                \
  }                                                                                                                    \
  void gem_gradient_row(const S* x, int64_t n, T largest, T p, T eps, T scale, S* dx) {                                \
    gradient_row_impl(x, n, largest, p, eps, scale, dx);                                                               \
  }                                                                                                                    \
  void gem_columns_largest(const S* x, int64_t n, int64_t stride, int64_t count, T* largest) {                         \
    columns_largest_impl(x, n, stride, count, largest);                                                                \
  }                                                                                                                    \
  void gem_columns_plain_sums(const S* x, int64_t n, int64_t stride, int64_t count, int power, T eps, T* largest,      \
                              T* sum) {                                                                                \
    with_power(power, [&]<int kPower>(Power<kPower>) {                                                                 \
      columns_plain_sums_impl<kPower>(x, n, stride, count, eps, largest, sum);                                         \
    });                                                                                                                \
  }                                                                                                                    \
  void gem_columns_power_sums(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p,      \
                              T eps, T* sum, T* log_sum) {                                                             \
    const auto run = log_sum != nullptr ? columns_power_sums_impl<true, S, T> : columns_power_sums_impl<false, S, T>;  \
    run(x, n, stride, count, largest, p, eps, sum, log_sum);                                                           \
  }                                                                                                                    \
  void gem_columns_plain_gradient(const S* x, int64_t n, int64_t stride, int64_t count, const T* inverse, int power,   \
                                  T eps, const T* scale, S* dx) {                                                      \
    with_power(power, [&]<int kPower>(Power<kPower>) {                                                                 \
      columns_plain_gradient_impl<kPower - 1>(x, n, stride, count, inverse, eps, scale, dx);                           \
    });                                                                                                                \
  }                                                                                                                    \
  void gem_columns_gradient(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p, T eps, \
                            const T* scale, S* dx) {                                                                   \
    columns_gradient_impl(x, n, stride, count, largest, p, eps, scale, dx);                                            \
  }                                                                                                                    \
  void gem_load(const S* x, int64_t n, T* values) { load_impl(x, n, values); }                                         \
  void gem_store(const T* values, int64_t n, S* x) { store_impl(values, n, x); }

#define PYREID_DEFINE_GEM(T)                                                                                           \
  void gem_finish(const T* largest, const double* sum, const T* unit, const double* log_sum, const T* p, int64_t rows, \
                  int64_t n, T* pooled, T* factor, T* slope) {                                                         \
    finish_impl(largest, sum, unit, log_sum, p, rows, n, pooled, factor, slope);                                       \
  }

PYREID_DEFINE_GEM_ROW(float, float)
PYREID_DEFINE_GEM_ROW(double, double)
PYREID_DEFINE_GEM_ROW(Half, float)
PYREID_DEFINE_GEM_ROW(BFloat16, float)
PYREID_DEFINE_GEM(float)
PYREID_DEFINE_GEM(double)

}  // namespace pyreid::cpu::PYREID_ISA
