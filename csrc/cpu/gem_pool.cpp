#include "csrc/cpu/gem_pool.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "csrc/cpu/huge_pages.h"
#include "csrc/cpu/simd/gem_pool.h"

namespace pyreid::cpu {
namespace {

constexpr int64_t kRowsPerBlock = 64;
constexpr int64_t kValuesPerBlock = 256;
// Of channels-last maps a task has so many channels of a sample: a run of 1 KiB in float at every position, and all
// positions of a usual map are still in the second-level cache when they are read again.
constexpr int64_t kChannelsPerBlock = 256;
constexpr int64_t kTermsPerPartial = 64;  // of each channel, before they go into the total in double

template <class T>
T exponent_of(const GemExponent<T>& p, int64_t channel) {
  if (p.values == nullptr) return p.value;
  return p.values[p.count == 1 ? 0 : channel];
}

// Whether v / largest and its logarithm are normal numbers for all v of the row, as the vector loops need. Other rows
// (NaN, infinity, more than 36 decades between eps and the largest value, or an exponent that is not positive) are
// rare: they go through libm in double.
template <class T>
bool is_ordinary(T largest, T p, T eps) {
  constexpr bool kSingle = std::is_same_v<T, float>;
  const T limit = std::ldexp(T(1), kSingle ? 100 : 900);
  return largest <= limit && largest >= 1 / limit && largest / std::ldexp(T(1), kSingle ? 120 : 1000) <= eps && p > 0 &&
         p <= std::numeric_limits<T>::max();
}

// The power of the loops without logarithms, or 0 if the exponent is another or not the same for all channels.
template <class T>
int plain_power(const GemExponent<T>& p) {
  const T exponent = p.count > 1 ? T(0) : exponent_of(p, 0);
  return exponent == T(1) ? 1 : exponent == T(2) ? 2 : exponent == T(3) ? 3 : 0;
}

// Whether the plain sum of v^3 over a row neither overflows nor loses the largest values: all but very odd rows. Others
// are scaled first, and go by logarithms.
template <class T>
bool has_plain_sum(T largest) {
  constexpr bool kSingle = std::is_same_v<T, float>;
  return largest <= std::ldexp(T(1), kSingle ? 36 : 300) && largest >= std::ldexp(T(1), kSingle ? -30 : -300);
}

// What a plain sum makes known of a row: its largest value, and the share of that in the sum, computed as in the loops,
// so that a row of one value pools to it. Whether the sum is to be used.
template <class T>
bool take_plain_sum(int64_t n, int power, T eps, T* largest, double* sum, T* unit) {
  const T m = *largest;
  if (*sum != *sum) *largest = std::numeric_limits<T>::quiet_NaN();
  *unit = T(1);
  if (*sum != *sum) return false;
  if (m == eps) {  // as all are
    *sum = static_cast<double>(n);
    return true;
  }
  if (!has_plain_sum(m)) return false;
  *unit = power == 3 ? m * m * m : power == 2 ? m * m : m;
  return true;
}

// n values `stride` apart
template <class S, class T>
void load_strided(const S* x, int64_t n, int64_t stride, T* values) {
  for (int64_t i = 0; i < n; ++i) PYREID_SIMD(gem_load, x + i * stride, 1, values + i);
}

template <class S, class T>
void power_sums_with_care(const S* x, int64_t n, int64_t stride, T largest, T p, T eps, double* sum, double* log_sum) {
  *sum = static_cast<double>(n);
  if (log_sum != nullptr) *log_sum = std::numeric_limits<double>::quiet_NaN();
  if (!std::isfinite(largest)) return;  // the row pools to `largest` itself and has no slope
  T values[kValuesPerBlock];
  double total = 0, log_total = 0;
  for (int64_t begin = 0; begin < n; begin += kValuesPerBlock) {
    const int64_t count = std::min(kValuesPerBlock, n - begin);
    load_strided(x + begin * stride, count, stride, values);
    for (int64_t i = 0; i < count; ++i) {
      const double u = static_cast<double>(std::max(values[i], eps)) / static_cast<double>(largest);
      const double power = std::pow(u, static_cast<double>(p));
      total += power;
      log_total += power * std::log2(u);
    }
  }
  *sum = total;
  if (log_sum != nullptr) *log_sum = log_total;
}

template <class S, class T>
void gradient_row_with_care(const S* x, int64_t n, int64_t stride, T largest, T p, T eps, T scale, S* dx) {
  T values[kValuesPerBlock];
  for (int64_t begin = 0; begin < n; begin += kValuesPerBlock) {
    const int64_t count = std::min(kValuesPerBlock, n - begin);
    load_strided(x + begin * stride, count, stride, values);
    for (int64_t i = 0; i < count; ++i) {
      const double u = static_cast<double>(values[i]) / static_cast<double>(largest);
      values[i] = values[i] < eps ? T(0) : static_cast<T>(scale * std::pow(u, static_cast<double>(p) - 1));
    }
    for (int64_t i = 0; i < count; ++i) PYREID_SIMD(gem_store, values + i, 1, dx + (begin + i) * stride);
  }
}

// Calls body(sample, first channel, channels, their exponents) for blocks of channels.
template <class T, class Body>
void for_column_blocks(int64_t samples, int64_t channels, int64_t n, const GemExponent<T>& p,
                       const ParallelFor& parallel_for, const Body& body) {
  const int64_t blocks = (channels + kChannelsPerBlock - 1) / kChannelsPerBlock;
  parallel_for(0, samples * blocks, grain_for(n * std::min(channels, kChannelsPerBlock)),
               [=](int64_t begin, int64_t end) {
                 T exponents[kChannelsPerBlock];
                 for (int64_t b = begin; b < end; ++b) {
                   const int64_t first = b % blocks * kChannelsPerBlock;
                   const int64_t count = std::min(kChannelsPerBlock, channels - first);
                   for (int64_t i = 0; i < count; ++i) exponents[i] = exponent_of(p, first + i);
                   body(b / blocks, first, count, static_cast<const T*>(exponents));
                 }
               });
}

// Calls body(first row, rows, their exponents) for blocks of rows.
template <class T, class Body>
void for_row_blocks(int64_t begin, int64_t end, int64_t channels, const GemExponent<T>& p, const Body& body) {
  T exponents[kRowsPerBlock];
  for (int64_t r = begin; r < end; r += kRowsPerBlock) {
    const int64_t rows = std::min(kRowsPerBlock, end - r);
    for (int64_t i = 0; i < rows; ++i) exponents[i] = exponent_of(p, (r + i) % channels);
    body(r, rows, static_cast<const T*>(exponents));
  }
}

// Adds up what `add(positions before, positions)` puts into partial sums, in runs that are short enough for T.
template <class Add>
void for_runs(int64_t n, const Add& add) {
  for (int64_t begin = 0; begin < n; begin += kTermsPerPartial) add(begin, std::min(kTermsPerPartial, n - begin));
}

template <class T>
void add_partial(T* partial, int64_t count, double* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<double>(partial[i]);
  std::fill(partial, partial + count, T(0));
}

// By logarithms, or for channels that are not ordinary, of which the vector loops compute nonsense, through libm.
template <class S, class T>
void sum_columns(const S* x, int64_t channels, int64_t count, int64_t n, const T* exponents, T eps, const T* largest,
                 double* sums, double* log_sums) {
  T partial[kChannelsPerBlock] = {}, log_partial[kChannelsPerBlock] = {};
  std::fill(sums, sums + count, 0.0);
  if (log_sums != nullptr) std::fill(log_sums, log_sums + count, 0.0);
  for_runs(n, [&](int64_t begin, int64_t positions) {
    PYREID_SIMD(gem_columns_power_sums, x + begin * channels, positions, channels, count, largest, exponents, eps,
                static_cast<T*>(partial), log_sums == nullptr ? nullptr : static_cast<T*>(log_partial));
    add_partial<T>(partial, count, sums);
    if (log_sums != nullptr) add_partial<T>(log_partial, count, log_sums);
  });
  for (int64_t i = 0; i < count; ++i) {
    if (is_ordinary(largest[i], exponents[i], eps)) continue;
    power_sums_with_care(x + i, n, channels, largest[i], exponents[i], eps, &sums[i],
                         log_sums == nullptr ? nullptr : &log_sums[i]);
  }
}

template <class S, class T>
void pool_columns(const S* x, int64_t channels, int64_t count, int64_t n, int power, const T* exponents, T eps,
                  T* pooled, T* largest, T* factor, T* slope) {
  double sums[kChannelsPerBlock], log_sums[kChannelsPerBlock];
  T units[kChannelsPerBlock];
  std::fill(units, units + count, T(1));
  std::fill(largest, largest + count, eps);
  if (power == 0) {
    PYREID_SIMD(gem_columns_largest, x, n, channels, count, largest);
    sum_columns(x, channels, count, n, exponents, eps, largest, sums, slope == nullptr ? nullptr : log_sums);
  } else {
    T partial[kChannelsPerBlock] = {};
    bool taken[kChannelsPerBlock], all_taken = true;
    std::fill(sums, sums + count, 0.0);
    for_runs(n, [&](int64_t begin, int64_t positions) {
      PYREID_SIMD(gem_columns_plain_sums, x + begin * channels, positions, channels, count, power, eps, largest,
                  static_cast<T*>(partial));
      add_partial<T>(partial, count, sums);
    });
    for (int64_t i = 0; i < count; ++i) {
      taken[i] = take_plain_sum(n, power, eps, &largest[i], &sums[i], &units[i]);
      all_taken = all_taken && taken[i];
    }
    if (!all_taken) {
      double others[kChannelsPerBlock];
      sum_columns(x, channels, count, n, exponents, eps, largest, others, nullptr);
      for (int64_t i = 0; i < count; ++i) sums[i] = taken[i] ? sums[i] : others[i];
    }
  }
  PYREID_SIMD(gem_finish, static_cast<const T*>(largest), static_cast<const double*>(sums),
              static_cast<const T*>(units), static_cast<const double*>(log_sums), exponents, count, n, pooled, factor,
              slope);
}

template <class S, class T>
void pool_rows(const S* x, int64_t rows, int64_t n, int power, const T* exponents, T eps, T* pooled, T* largest,
               T* factor, T* slope) {
  double sums[kRowsPerBlock], log_sums[kRowsPerBlock];
  T units[kRowsPerBlock];
  if (power == 0) {
    PYREID_SIMD(gem_largest, x, rows, n, eps, largest);
  } else {
    PYREID_SIMD(gem_plain_sums, x, rows, n, power, eps, largest, static_cast<double*>(sums));
  }
  for (int64_t i = 0; i < rows; ++i) {
    const S* row = x + i * n;
    units[i] = T(1);
    if (power != 0 && take_plain_sum(n, power, eps, &largest[i], &sums[i], &units[i])) continue;
    double* log_sum = slope == nullptr ? nullptr : &log_sums[i];
    if (is_ordinary(largest[i], exponents[i], eps)) {
      PYREID_SIMD(gem_power_sums, row, n, largest[i], exponents[i], eps, &sums[i], log_sum);
    } else {
      power_sums_with_care(row, n, 1, largest[i], exponents[i], eps, &sums[i], log_sum);
    }
  }
  PYREID_SIMD(gem_finish, static_cast<const T*>(largest), static_cast<const double*>(sums),
              static_cast<const T*>(units), static_cast<const double*>(log_sums), exponents, rows, n, pooled, factor,
              slope);
}

template <class S, class T>
void gradient_of_columns(const T* grad, const S* x, const T* largest, const T* factor, int64_t channels, int64_t count,
                         int64_t n, int power, const T* exponents, T eps, S* dx) {
  T scale[kChannelsPerBlock], inverse[kChannelsPerBlock];
  for (int64_t i = 0; i < count; ++i) scale[i] = grad[i] * factor[i];
  if (power == 0) {
    PYREID_SIMD(gem_columns_gradient, x, n, channels, count, largest, exponents, eps, static_cast<const T*>(scale), dx);
  } else {
    for (int64_t i = 0; i < count; ++i) inverse[i] = T(1) / largest[i];
    PYREID_SIMD(gem_columns_plain_gradient, x, n, channels, count, static_cast<const T*>(inverse), power, eps,
                static_cast<const T*>(scale), dx);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (is_ordinary(largest[i], exponents[i], eps)) continue;
    gradient_row_with_care(x + i, n, channels, largest[i], exponents[i], eps, scale[i], dx + i);
  }
}

template <class S, class T>
void gradient_of_rows(const T* grad, const S* x, const T* largest, const T* factor, int64_t rows, int64_t n, int power,
                      const T* exponents, T eps, S* dx) {
  T scale[kRowsPerBlock], inverse[kRowsPerBlock];
  for (int64_t i = 0; i < rows; ++i) scale[i] = grad[i] * factor[i];
  if (power != 0) {
    for (int64_t i = 0; i < rows; ++i) inverse[i] = T(1) / largest[i];
    PYREID_SIMD(gem_plain_gradient, x, rows, n, static_cast<const T*>(inverse), power, eps,
                static_cast<const T*>(scale), dx);
  }
  for (int64_t i = 0; i < rows; ++i) {
    if (!is_ordinary(largest[i], exponents[i], eps)) {
      gradient_row_with_care(x + i * n, n, 1, largest[i], exponents[i], eps, scale[i], dx + i * n);
    } else if (power == 0) {
      PYREID_SIMD(gem_gradient_row, x + i * n, n, largest[i], exponents[i], eps, scale[i], dx + i * n);
    }
  }
}

}  // namespace

template <class S, class T>
void gem_pool(const S* x, int64_t samples, int64_t channels, int64_t n, bool channels_last, GemExponent<T> p, T eps,
              T* pooled, T* largest, T* factor, T* slope, const ParallelFor& parallel_for) {
  if (samples == 0 || channels == 0) return;
  const int power = slope == nullptr ? plain_power(p) : 0;
  if (channels_last) {
    for_column_blocks(samples, channels, n, p, parallel_for,
                      [=](int64_t sample, int64_t first, int64_t count, const T* exponents) {
                        const int64_t r = sample * channels + first;
                        pool_columns(x + sample * n * channels + first, channels, count, n, power, exponents, eps,
                                     pooled + r, largest + r, factor + r, slope == nullptr ? nullptr : slope + r);
                      });
    return;
  }
  parallel_for(0, samples * channels, grain_for(n), [=](int64_t begin, int64_t end) {
    for_row_blocks(begin, end, channels, p, [=](int64_t r, int64_t rows, const T* exponents) {
      pool_rows(x + r * n, rows, n, power, exponents, eps, pooled + r, largest + r, factor + r,
                slope == nullptr ? nullptr : slope + r);
    });
  });
}

template <class S, class T>
void gem_pool_gradient(const T* grad, const S* x, const T* largest, const T* factor, int64_t samples, int64_t channels,
                       int64_t n, bool channels_last, GemExponent<T> p, T eps, S* dx, const ParallelFor& parallel_for) {
  if (samples == 0 || channels == 0) return;
  advise_huge_pages(dx, samples * channels * n * static_cast<int64_t>(sizeof(S)));
  const int power = plain_power(p);
  if (channels_last) {
    for_column_blocks(samples, channels, n, p, parallel_for,
                      [=](int64_t sample, int64_t first, int64_t count, const T* exponents) {
                        const int64_t r = sample * channels + first, place = sample * n * channels + first;
                        gradient_of_columns(grad + r, x + place, largest + r, factor + r, channels, count, n, power,
                                            exponents, eps, dx + place);
                      });
    return;
  }
  parallel_for(0, samples * channels, grain_for(n), [=](int64_t begin, int64_t end) {
    for_row_blocks(begin, end, channels, p, [=](int64_t r, int64_t rows, const T* exponents) {
      gradient_of_rows(grad + r, x + r * n, largest + r, factor + r, rows, n, power, exponents, eps, dx + r * n);
    });
  });
}

template <class T>
void gem_pool_exponent_gradient(const T* grad, const T* slope, int64_t samples, int64_t channels, double* by_channel,
                                int64_t count, T* dp, const ParallelFor& parallel_for) {
  parallel_for(0, channels, grain_for(samples), [=](int64_t begin, int64_t end) {
    std::fill(by_channel + begin, by_channel + end, 0.0);
    for (int64_t i = 0; i < samples; ++i) {
      for (int64_t c = begin; c < end; ++c) {
        by_channel[c] += static_cast<double>(grad[i * channels + c]) * static_cast<double>(slope[i * channels + c]);
      }
    }
  });
  if (count == 1) {
    double total = 0;
    for (int64_t c = 0; c < channels; ++c) total += by_channel[c];
    dp[0] = static_cast<T>(total);
  } else {
    for (int64_t c = 0; c < channels; ++c) dp[c] = static_cast<T>(by_channel[c]);
  }
}

#define PYREID_INSTANTIATE_ROWS(S, T)                                                                      \
  template void gem_pool(const S*, int64_t, int64_t, int64_t, bool, GemExponent<T>, T, T*, T*, T*, T*,     \
                         const ParallelFor&);                                                              \
  template void gem_pool_gradient(const T*, const S*, const T*, const T*, int64_t, int64_t, int64_t, bool, \
                                  GemExponent<T>, T, S*, const ParallelFor&);
#define PYREID_INSTANTIATE(T)                                                                          \
  template void gem_pool_exponent_gradient(const T*, const T*, int64_t, int64_t, double*, int64_t, T*, \
                                           const ParallelFor&);
PYREID_INSTANTIATE_ROWS(float, float)
PYREID_INSTANTIATE_ROWS(double, double)
PYREID_INSTANTIATE_ROWS(Half, float)
PYREID_INSTANTIATE_ROWS(BFloat16, float)
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE
#undef PYREID_INSTANTIATE_ROWS

}  // namespace pyreid::cpu
