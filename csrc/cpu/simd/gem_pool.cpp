#include "csrc/cpu/simd/gem_pool.h"

#include "csrc/cpu/simd/half.h"
#include "csrc/cpu/simd/math.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

template <class T>
struct LaneOf {
  typedef int32_t type;
};
template <>
struct LaneOf<double> {
  typedef int64_t type;
};
template <class T>
using Lane = typename LaneOf<T>::type;

// The last n % kLanes values of a row. A row of at least one vector reads the vector that ends with it, of which only
// the upper lanes are new; a shorter row fills the lower lanes.
template <class T>
struct Tail {
  Vec<T> values;
  Vec<Lane<T>> is_new;
};

template <class S, class T = Compute<S>>
inline Tail<T> load_tail(const S* x, int64_t n) {
  Vec<Lane<T>> lane;
  for (int64_t i = 0; i < kLanes<T>; ++i) lane[i] = static_cast<Lane<T>>(i);
  if (n < kLanes<T>) return {load_some(x, n), lane < static_cast<Lane<T>>(n)};
  return {load_values(x + n - kLanes<T>), lane >= static_cast<Lane<T>>(kLanes<T> - n % kLanes<T>)};
}

template <class T>
inline Vec<T> larger_or_nan(Vec<T> best, Vec<T> v) {
  return ((v > best) | (v != v)) ? v : best;
}

template <class T>
inline Vec<T> clamp_from_below(Vec<T> x, T eps) {
  const Vec<T> least = broadcast(eps);
  return x < least ? least : x;
}

template <class S, class T>
T largest_impl(const S* x, int64_t n, T eps) {
  constexpr int64_t kStep = kLanes<T>;
  Vec<T> best0 = broadcast(eps), best1 = best0;
  int64_t i = 0;
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    best0 = larger_or_nan<T>(best0, load_values(x + i));
    best1 = larger_or_nan<T>(best1, load_values(x + i + kStep));
  }
  if (i + kStep <= n) {
    best0 = larger_or_nan<T>(best0, load_values(x + i));
    i += kStep;
  }
  if (i < n) {
    const Tail<T> tail = load_tail(x, n);
    best1 = larger_or_nan<T>(best1, tail.is_new ? tail.values : best1);
  }
  best0 = larger_or_nan<T>(best0, best1);
  T largest = best0[0];
  for (int64_t lane = 1; lane < kStep; ++lane) {
    if (best0[lane] > largest || best0[lane] != best0[lane]) largest = best0[lane];
  }
  return largest;
}

// u^power for the powers that need no logarithm; kGeneral stands for any other.
constexpr int kGeneral = -1;

template <int kPower, class T>
inline Vec<T> integer_power(Vec<T> u) {
  if constexpr (kPower == 0) return broadcast(T(1));
  if constexpr (kPower == 1) return u;
  if constexpr (kPower == 2) return u * u;
  if constexpr (kPower == 3) return u * u * u;
}

template <int kPower, bool kLog, class S, class T>
void power_sums_impl(const S* x, int64_t n, T largest, T p, T eps, double* sum, double* log_sum) {
  constexpr int64_t kStep = kLanes<T>;
  // Each lane adds up to 64 terms before it goes into the total: the rounding error does not grow with the row.
  constexpr int64_t kChunk = 64 * kStep;
  const Vec<T> exponent = broadcast(p), divisor = broadcast(largest);
  double total = 0, log_total = 0;
  const auto terms = [&](Vec<T> values, Vec<T>& power, Vec<T>& log) {
    const Vec<T> u = clamp_from_below<T>(values, eps) / divisor;
    if constexpr (kLog || kPower == kGeneral) {
      log = log2<T>(u);
      power = exp2<T>(exponent * log);
    } else {
      power = integer_power<kPower, T>(u);
    }
  };
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = n - begin < kChunk ? n : begin + kChunk;
    Vec<T> sums{}, log_sums{}, power{}, log{};
    int64_t i = begin;
    for (; i + kStep <= end; i += kStep) {
      terms(load_values(x + i), power, log);
      sums += power;
      if constexpr (kLog) log_sums += power * log;
    }
    if (i < end) {
      const Tail<T> tail = load_tail(x, n);
      terms(tail.values, power, log);
      power = tail.is_new ? power : Vec<T>{};
      sums += power;
      if constexpr (kLog) log_sums += power * log;
    }
    total += static_cast<double>(sum_lanes<T>(sums));
    if constexpr (kLog) log_total += static_cast<double>(sum_lanes<T>(log_sums));
  }
  *sum = total;
  if constexpr (kLog) *log_sum = log_total;
}

// kPower is p - 1 here
template <int kPower, class S, class T>
void gradient_row_impl(const S* x, int64_t n, T largest, T p, T eps, T scale, S* dx) {
  constexpr int64_t kStep = kLanes<T>;
  const Vec<T> exponent = broadcast(p - T(1)), divisor = broadcast(largest);
  const auto gradient = [&](Vec<T> values) -> Vec<T> {
    const Vec<T> u = clamp_from_below<T>(values, eps) / divisor;
    Vec<T> power;
    if constexpr (kPower == kGeneral) {
      power = exp2<T>(exponent * log2<T>(u));
    } else {
      power = integer_power<kPower, T>(u);
    }
    return values < eps ? Vec<T>{} : power * scale;
  };
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) store_values(dx + i, gradient(load_values(x + i)));
  if (i == n) return;
  const Vec<T> last = gradient(load_tail(x, n).values);
  if (n < kStep) {
    store_some(dx, last, n);
  } else {
    store_values(dx + n - kStep, last);  // what it overlaps is written again with the same bits
  }
}

// Columns: a vector holds neighbouring channels, and what has been summed of them is kept in memory (the first-level
// cache), so that x is read in the order in which it lies.

// The channels from i on: a whole vector, or the last count - i of them with ones in the other lanes.
template <class T>
inline Vec<T> load_channels(const T* p, int64_t i, int64_t count) {
  return i + kLanes<T> <= count ? load(p + i) : load_partial(p + i, count - i, T(1));
}
template <class T>
inline void store_channels(T* p, Vec<T> v, int64_t i, int64_t count) {
  if (i + kLanes<T> <= count) {
    store(p + i, v);
  } else {
    store_partial(p + i, v, count - i);
  }
}
template <class S>
inline Vec<Compute<S>> load_position(const S* p, int64_t i, int64_t count) {
  return i + kLanes<Compute<S>> <= count ? load_values(p + i) : load_some(p + i, count - i);
}

template <class S, class T>
void columns_largest_impl(const S* x, int64_t n, int64_t stride, int64_t count, T* largest) {
  for (int64_t position = 0; position < n; ++position) {
    const S* row = x + position * stride;
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vec<T> best = load_channels(largest, i, count);
      store_channels(largest, larger_or_nan<T>(best, load_position(row, i, count)), i, count);
    }
  }
}

template <int kPower, bool kLog, class S, class T>
void columns_power_sums_impl(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p, T eps,
                             T* sum, T* log_sum) {
  for (int64_t position = 0; position < n; ++position) {
    const S* row = x + position * stride;
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vec<T> u = clamp_from_below<T>(load_position(row, i, count), eps) / load_channels(largest, i, count);
      Vec<T> power, log;
      if constexpr (kLog || kPower == kGeneral) {
        log = log2<T>(u);
        power = exp2<T>(load_channels(p, i, count) * log);
      } else {
        power = integer_power<kPower, T>(u);
      }
      store_channels<T>(sum, load_channels(sum, i, count) + power, i, count);
      if constexpr (kLog) store_channels<T>(log_sum, load_channels(log_sum, i, count) + power * log, i, count);
    }
  }
}

// kPower is p - 1 here
template <int kPower, class S, class T>
void columns_gradient_impl(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p, T eps,
                           const T* scale, S* dx) {
  for (int64_t position = 0; position < n; ++position) {
    const S* row = x + position * stride;
    S* out = dx + position * stride;
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vec<T> values = load_position(row, i, count);
      const Vec<T> u = clamp_from_below<T>(values, eps) / load_channels(largest, i, count);
      Vec<T> power;
      if constexpr (kPower == kGeneral) {
        power = exp2<T>((load_channels(p, i, count) - T(1)) * log2<T>(u));
      } else {
        power = integer_power<kPower, T>(u);
      }
      const Vec<T> gradient = values < eps ? Vec<T>{} : power * load_channels(scale, i, count);
      if (i + kLanes<T> <= count) {
        store_values(out + i, gradient);
      } else {
        store_some(out + i, gradient, count - i);
      }
    }
  }
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

// In double whatever T: 1 / p and the logarithm of the sum would lose digits, and rows are few.
template <class T>
void finish_impl(const T* largest, const double* sum, const double* log_sum, const T* p, int64_t rows, int64_t n,
                 T* pooled, T* factor, T* slope) {
  constexpr int64_t kStep = kLanes<double>;
  const double count = static_cast<double>(n);
  for (int64_t begin = 0; begin < rows; begin += kStep) {
    const int64_t step = rows - begin < kStep ? rows - begin : kStep;
    Vec<double> m = broadcast(1.0), s = m, l = m, q = m;
    for (int64_t i = 0; i < step; ++i) {
      m[i] = static_cast<double>(largest[begin + i]);
      s[i] = sum[begin + i];
      q[i] = static_cast<double>(p[begin + i]);
      if (slope != nullptr) l[i] = log_sum[begin + i];
    }
    const Vec<double> log_mean = s == s ? log2<double>(s / count) : s;
    // At most m, as a mean must be: log2 of 0 < u <= 1 is never above 0, exp2 of that never above 1, nor is the mean.
    const Vec<double> y = m * exp2<double>(log_mean / q);
    const Vec<double> weight = exp2<double>(log_mean * (1.0 / q - 1.0)) / count;
    const Vec<double> by_p = y / q * kLn2 * (l / s - log_mean / q);
    for (int64_t i = 0; i < step; ++i) {
      pooled[begin + i] = static_cast<T>(y[i]);
      factor[begin + i] = static_cast<T>(weight[i]);
      if (slope != nullptr) slope[begin + i] = static_cast<T>(by_p[i]);
    }
  }
}

}  // namespace

#define PYREID_DEFINE_GEM_ROW(S, T)                                                                               \
  T gem_largest(const S* x, int64_t n, T eps) { return largest_impl(x, n, eps); }                                 \
  void gem_power_sums(const S* x, int64_t n, T largest, T p, T eps, double* sum, double* log_sum) {               \
    if (log_sum != nullptr) return power_sums_impl<kGeneral, true>(x, n, largest, p, eps, sum, log_sum);          \
    if (p == T(3)) return power_sums_impl<3, false>(x, n, largest, p, eps, sum, log_sum);                         \
    if (p == T(2)) return power_sums_impl<2, false>(x, n, largest, p, eps, sum, log_sum);                         \
    if (p == T(1)) return power_sums_impl<1, false>(x, n, largest, p, eps, sum, log_sum);                         \
    power_sums_impl<kGeneral, false>(x, n, largest, p, eps, sum, log_sum);                                        \
  }                                                                                                               \
  void gem_gradient_row(const S* x, int64_t n, T largest, T p, T eps, T scale, S* dx) {                           \
    if (p == T(3)) return gradient_row_impl<2>(x, n, largest, p, eps, scale, dx);                                 \
    if (p == T(2)) return gradient_row_impl<1>(x, n, largest, p, eps, scale, dx);                                 \
    if (p == T(1)) return gradient_row_impl<0>(x, n, largest, p, eps, scale, dx);                                 \
    gradient_row_impl<kGeneral>(x, n, largest, p, eps, scale, dx);                                                \
  }                                                                                                               \
  void gem_columns_largest(const S* x, int64_t n, int64_t stride, int64_t count, T* largest) {                    \
    columns_largest_impl(x, n, stride, count, largest);                                                           \
  }                                                                                                               \
  void gem_columns_power_sums(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p, \
                              T uniform, T eps, T* sum, T* log_sum) {                                             \
    const auto run = log_sum != nullptr ? columns_power_sums_impl<kGeneral, true, S, T>                           \
                     : uniform == T(3)  ? columns_power_sums_impl<3, false, S, T>                                 \
                     : uniform == T(2)  ? columns_power_sums_impl<2, false, S, T>                                 \
                     : uniform == T(1)  ? columns_power_sums_impl<1, false, S, T>                                 \
                                        : columns_power_sums_impl<kGeneral, false, S, T>;                         \
    run(x, n, stride, count, largest, p, eps, sum, log_sum);                                                      \
  }                                                                                                               \
  void gem_columns_gradient(const S* x, int64_t n, int64_t stride, int64_t count, const T* largest, const T* p,   \
                            T uniform, T eps, const T* scale, S* dx) {                                            \
    const auto run = uniform == T(3)   ? columns_gradient_impl<2, S, T>                                           \
                     : uniform == T(2) ? columns_gradient_impl<1, S, T>                                           \
                     : uniform == T(1) ? columns_gradient_impl<0, S, T>                                           \
                                       : columns_gradient_impl<kGeneral, S, T>;                                   \
    run(x, n, stride, count, largest, p, eps, scale, dx);                                                         \
  }                                                                                                               \
  void gem_load(const S* x, int64_t n, T* values) { load_impl(x, n, values); }                                    \
  void gem_store(const T* values, int64_t n, S* x) { store_impl(values, n, x); }

#define PYREID_DEFINE_GEM(T)                                                                                       \
  void gem_finish(const T* largest, const double* sum, const double* log_sum, const T* p, int64_t rows, int64_t n, \
                  T* pooled, T* factor, T* slope) {                                                                \
    finish_impl(largest, sum, log_sum, p, rows, n, pooled, factor, slope);                                         \
  }

PYREID_DEFINE_GEM_ROW(float, float)
PYREID_DEFINE_GEM_ROW(double, double)
PYREID_DEFINE_GEM_ROW(Half, float)
PYREID_DEFINE_GEM_ROW(BFloat16, float)
PYREID_DEFINE_GEM(float)
PYREID_DEFINE_GEM(double)

}  // namespace pyreid::cpu::PYREID_ISA
