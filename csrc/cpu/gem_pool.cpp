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

// Calls body(sample, first channel, channels) for blocks of channels.
template <class Body>
void for_column_blocks(int64_t samples, int64_t channels, int64_t n, const ParallelFor& parallel_for,
                       const Body& body) {
  const int64_t blocks = (channels + kChannelsPerBlock - 1) / kChannelsPerBlock;
  parallel_for(0, samples * blocks, grain_for(n * std::min(channels, kChannelsPerBlock)),
               [=](int64_t begin, int64_t end) {
                 for (int64_t b = begin; b < end; ++b) {
                   const int64_t first = b % blocks * kChannelsPerBlock;
                   body(b / blocks, first, std::min(kChannelsPerBlock, channels - first));
                 }
               });
}

// What the vector loops need of each channel of a block. They compute nonsense for a channel that is not ordinary,
// which then goes through libm.
template <class T>
struct Columns {
  T exponents[kChannelsPerBlock];
  bool ordinary[kChannelsPerBlock];
  T uniform;  // 0: each channel its own
  Columns(const GemExponent<T>& p, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) exponents[i] = exponent_of(p, first + i);
    uniform = p.count > 1 ? T(0) : exponents[0];
  }
  void find_ordinary(const T* largest, int64_t count, T eps) {
    for (int64_t i = 0; i < count; ++i) ordinary[i] = is_ordinary(largest[i], exponents[i], eps);
  }
};

template <class S, class T>
void pool_columns(const S* x, int64_t channels, int64_t count, int64_t n, Columns<T>& columns, T eps, T* pooled,
                  T* largest, T* factor, T* slope) {
  const bool with_logs = slope != nullptr;
  double sums[kChannelsPerBlock] = {}, log_sums[kChannelsPerBlock] = {};
  T partial[kChannelsPerBlock], log_partial[kChannelsPerBlock];
  std::fill(largest, largest + count, eps);
  PYREID_SIMD(gem_columns_largest, x, n, channels, count, largest);
  columns.find_ordinary(largest, count, eps);
  for (int64_t begin = 0; begin < n; begin += kTermsPerPartial) {
    std::fill(partial, partial + count, T(0));
    std::fill(log_partial, log_partial + count, T(0));
    PYREID_SIMD(gem_columns_power_sums, x + begin * channels, std::min(kTermsPerPartial, n - begin), channels, count,
                static_cast<const T*>(largest), static_cast<const T*>(columns.exponents), columns.uniform, eps,
                static_cast<T*>(partial), with_logs ? static_cast<T*>(log_partial) : nullptr);
    for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<double>(partial[i]);
    for (int64_t i = 0; i < count; ++i) log_sums[i] += static_cast<double>(log_partial[i]);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (!columns.ordinary[i]) {
      power_sums_with_care(x + i, n, channels, largest[i], columns.exponents[i], eps, &sums[i],
                           with_logs ? &log_sums[i] : nullptr);
    }
  }
  PYREID_SIMD(gem_finish, static_cast<const T*>(largest), static_cast<const double*>(sums),
              static_cast<const double*>(log_sums), static_cast<const T*>(columns.exponents), count, n, pooled, factor,
              slope);
}

}  // namespace

template <class S, class T>
void gem_pool(const S* x, int64_t samples, int64_t channels, int64_t n, bool channels_last, GemExponent<T> p, T eps,
              T* pooled, T* largest, T* factor, T* slope, const ParallelFor& parallel_for) {
  if (channels_last) {
    for_column_blocks(samples, channels, n, parallel_for, [=](int64_t sample, int64_t first, int64_t count) {
      const int64_t r = sample * channels + first;
      Columns<T> columns(p, first, count);
      pool_columns(x + sample * n * channels + first, channels, count, n, columns, eps, pooled + r, largest + r,
                   factor + r, slope == nullptr ? nullptr : slope + r);
    });
    return;
  }
  parallel_for(0, samples * channels, grain_for(n), [=](int64_t task_begin, int64_t task_end) {
    T exponents[kRowsPerBlock];
    double sums[kRowsPerBlock], log_sums[kRowsPerBlock];
    for (int64_t begin = task_begin; begin < task_end; begin += kRowsPerBlock) {
      const int64_t rows = std::min(kRowsPerBlock, task_end - begin);
      for (int64_t i = 0; i < rows; ++i) {
        const S* row = x + (begin + i) * n;
        const T exponent = exponents[i] = exponent_of(p, (begin + i) % channels);
        const T m = largest[begin + i] = PYREID_SIMD(gem_largest, row, n, eps);
        double* log_sum = slope == nullptr ? nullptr : &log_sums[i];
        if (is_ordinary(m, exponent, eps)) {
          PYREID_SIMD(gem_power_sums, row, n, m, exponent, eps, &sums[i], log_sum);
        } else {
          power_sums_with_care(row, n, 1, m, exponent, eps, &sums[i], log_sum);
        }
      }
      PYREID_SIMD(gem_finish, largest + begin, sums, log_sums, exponents, rows, n, pooled + begin, factor + begin,
                  slope == nullptr ? nullptr : slope + begin);
    }
  });
}

template <class S, class T>
void gem_pool_gradient(const T* grad, const S* x, const T* largest, const T* factor, int64_t samples, int64_t channels,
                       int64_t n, bool channels_last, GemExponent<T> p, T eps, S* dx, const ParallelFor& parallel_for) {
  advise_huge_pages(dx, samples * channels * n * static_cast<int64_t>(sizeof(S)));
  if (channels_last) {
    for_column_blocks(samples, channels, n, parallel_for, [=](int64_t sample, int64_t first, int64_t count) {
      const int64_t r = sample * channels + first, place = sample * n * channels + first;
      Columns<T> columns(p, first, count);
      columns.find_ordinary(largest + r, count, eps);
      T scale[kChannelsPerBlock];
      for (int64_t i = 0; i < count; ++i) scale[i] = grad[r + i] * factor[r + i];
      PYREID_SIMD(gem_columns_gradient, x + place, n, channels, count, largest + r,
                  static_cast<const T*>(columns.exponents), columns.uniform, eps, static_cast<const T*>(scale),
                  dx + place);
      for (int64_t i = 0; i < count; ++i) {
        if (!columns.ordinary[i]) {
          gradient_row_with_care(x + place + i, n, channels, largest[r + i], columns.exponents[i], eps, scale[i],
                                 dx + place + i);
        }
      }
    });
    return;
  }
  parallel_for(0, samples * channels, grain_for(n), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T exponent = exponent_of(p, r % channels), scale = grad[r] * factor[r];
      if (is_ordinary(largest[r], exponent, eps)) {
        PYREID_SIMD(gem_gradient_row, x + r * n, n, largest[r], exponent, eps, scale, dx + r * n);
      } else {
        gradient_row_with_care(x + r * n, n, 1, largest[r], exponent, eps, scale, dx + r * n);
      }
    }
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
