// Tests of the gem_pool kernels against loops, for a backend that has them (problems/pairwise_distance.h).
#pragma once
#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "cpp_tests/problems/storage.h"
#include "csrc/gem_pool.h"

namespace pyreid::test {

// An exponent as the operator passes it: a number, one value in memory, or one for each channel.
template <class T>
struct Exponent {
  std::vector<T> values;
  T value = 0;
  GemExponent<T> kernel_argument() const {
    return {values.empty() ? nullptr : values.data(), static_cast<int64_t>(values.size()), value};
  }
  Real of(int64_t channel) const { return values.empty() ? value : values[values.size() == 1 ? 0 : channel]; }
};

template <class S, class T>
struct GemRows {
  int64_t samples, channels, n;
  T eps;
  std::vector<S> x;  // [N, C, n]
  std::vector<T> grad;

  template <class Backend>
  static GemRows random(Backend, int64_t samples, int64_t channels, int64_t n) {
    GemRows rows{samples, channels, n, T(1e-6), {}, {}};
    Random random(5);
    for (int64_t i = 0; i < samples * channels * n; ++i) {
      // Half of the features of a ReLU are zero; some here are negative.
      const double u = random.uniform();
      rows.x.push_back(store<S, Backend>(u < 0.3 ? 0 : u < 0.4 ? -u : 4 * random.uniform()));
    }
    rows.grad = random.values<T>(samples * channels);
    return rows;
  }
};

struct GemReference {
  std::vector<Real> pooled, dx, dp_terms, dp_sizes;
};

template <class S, class T, class Backend>
GemReference gem_reference(const GemRows<S, T>& rows, const Exponent<T>& exponent) {
  GemReference out;
  for (int64_t r = 0; r < rows.samples * rows.channels; ++r) {
    const Real p = exponent.of(r % rows.channels), n = rows.n;
    std::vector<Real> v;
    for (int64_t i = 0; i < rows.n; ++i) v.push_back(std::max<Real>(load<Backend>(rows.x[r * rows.n + i]), rows.eps));
    const Real m = *std::max_element(v.begin(), v.end());
    Real sum = 0, log_sum = 0;
    for (const Real value : v) {
      sum += std::pow(value / m, p);
      log_sum += std::pow(value / m, p) * std::log(value / m);
    }
    const Real y = m * std::pow(sum / n, 1 / p);
    out.pooled.push_back(y);
    for (int64_t i = 0; i < rows.n; ++i) {
      const bool clamped = load<Backend>(rows.x[r * rows.n + i]) < rows.eps;
      out.dx.push_back(clamped ? 0 : rows.grad[r] / n * std::pow(v[i] / y, p - 1));
    }
    const Real a = log_sum / sum, b = std::log(sum / n) / p;
    out.dp_terms.push_back(y / p * (a - b));
    out.dp_sizes.push_back(y / p * (std::fabs(a) + std::fabs(b) + 1));
  }
  return out;
}

// A term u^p = 2^(p log2 u) has a relative error of a few p |log2 u| roundoffs, which is a few roundoffs of the largest
// term; a thread adds up to 64 terms before it starts afresh. The root turns a relative error e of the mean into e / p.
template <class T>
double gem_tolerance(Real p) {
  return 128 * kRoundoff<T> * (1 + 1 / static_cast<double>(p));
}

// Where the kernels get x from and put dx: channels first or last, and at an address that packs do not fit.
struct Place {
  bool channels_last = false;
  int64_t misaligned_by = 0;  // elements
};

template <class S>
std::vector<S> in_memory(const std::vector<S>& x, int64_t samples, int64_t channels, int64_t n, const Place& place) {
  std::vector<S> stored(x.size() + place.misaligned_by);
  for (int64_t i = 0; i < samples * channels * n; ++i) {
    const int64_t sample = i / (channels * n), c = i / n % channels, position = i % n;
    stored[place.misaligned_by + (place.channels_last ? (sample * n + position) * channels + c : i)] = x[i];
  }
  return stored;
}

template <class S, class T, class Backend>
void check_gem(const GemRows<S, T>& rows, const Exponent<T>& exponent, bool with_slope, const Place& place = {}) {
  const int64_t count = rows.samples * rows.channels;
  const std::vector<S> x = in_memory(rows.x, rows.samples, rows.channels, rows.n, place);
  const auto [pooled, largest, factor, slope, dx] = Backend::repeat([&] {
    std::tuple out{unwritten<T>(count), unwritten<T>(count), unwritten<T>(count), unwritten<T>(with_slope ? count : 0),
                   std::vector<S>(x.size(), store<S, Backend>(NAN))};
    auto& [pooled, largest, factor, slope, dx] = out;
    Backend::gem_pool(x.data() + place.misaligned_by, rows.samples, rows.channels, rows.n, place.channels_last,
                      exponent.kernel_argument(), rows.eps, pooled.data(), largest.data(), factor.data(),
                      with_slope ? slope.data() : nullptr);
    Backend::gem_pool_gradient(static_cast<const T*>(rows.grad.data()), x.data() + place.misaligned_by,
                               static_cast<const T*>(largest.data()), static_cast<const T*>(factor.data()),
                               rows.samples, rows.channels, rows.n, place.channels_last, exponent.kernel_argument(),
                               rows.eps, dx.data() + place.misaligned_by);
    return out;
  });
  const GemReference expected = gem_reference<S, T, Backend>(rows, exponent);
  for (int64_t r = 0; r < count; ++r) {
    const double relative = gem_tolerance<T>(exponent.of(r % rows.channels));
    CHECK_CLOSE(pooled[r], expected.pooled[r], relative * expected.pooled[r]);
    if (with_slope) CHECK_CLOSE(slope[r], expected.dp_terms[r], relative * expected.dp_sizes[r]);
  }
  const std::vector<Real> expected_dx = in_memory(expected.dx, rows.samples, rows.channels, rows.n, place);
  for (size_t i = place.misaligned_by; i < dx.size(); ++i) {
    const int64_t e = static_cast<int64_t>(i) - place.misaligned_by;
    const int64_t channel = place.channels_last ? e % rows.channels : e / rows.n % rows.channels;
    const double relative = gem_tolerance<T>(exponent.of(channel)) + storage_roundoff<S, Backend>();
    // The smallest step of a half type is that of its subnormals.
    CHECK_CLOSE(load<Backend>(dx[i]), expected_dx[i], relative * std::fabs(expected_dx[i]) + 0x1p-24);
  }
}

template <class S, class T, class Backend>
void check_gem_exponents(int64_t samples, int64_t channels, int64_t n, const Place& place) {
  const auto rows = GemRows<S, T>::random(Backend{}, samples, channels, n);
  for (const double p : {1.0, 2.0, 3.0, 3.7, 0.5}) {
    check_gem<S, T, Backend>(rows, Exponent<T>{{}, static_cast<T>(p)}, p > 2.5, place);
    if (p > 1.5 && p < 3.5) check_gem<S, T, Backend>(rows, Exponent<T>{{}, static_cast<T>(p)}, p < 2.5, place);
  }
  check_gem<S, T, Backend>(rows, Exponent<T>{{T(2.9)}, 0}, true, place);
  Random random(6);
  check_gem<S, T, Backend>(rows, Exponent<T>{random.values<T>(channels, 1, 6), 0}, true, place);
}

template <class S, class T, class Backend>
void check_gem_of_random_rows() {
  // Whole packs and not, rows shorter than a warp and longer than one, and more rows than blocks of either kind
  constexpr int64_t kShapes[][3] = {{1, 1, 1}, {3, 5, 49}, {2, 13, 128}, {3, 3, 1030}, {2, 4, 33}, {1, 3, 48}};
  for (const auto& [samples, channels, n] : kShapes) check_gem_exponents<S, T, Backend>(samples, channels, n, {});
}

// The lengths at which a kernel may go from one way of reading rows to another: those that a group of 8, 16, 32 or 256
// threads just holds, in packs of 16 bytes or singly, and one element or pack more.
template <class S, class T, class Backend>
void check_gem_of_row_lengths() {
  constexpr int64_t kPack = 16 / sizeof(S);
  constexpr int64_t kHeldPacks = sizeof(S) == 8 ? 2 : 5, kHeldSingly = sizeof(S) == 8 ? 4 : 16;
  const auto check = [](int64_t samples, int64_t n, int64_t misaligned_by) {
    const auto rows = GemRows<S, T>::random(Backend{}, samples, 3, n);
    const Place place{false, misaligned_by};
    check_gem<S, T, Backend>(rows, Exponent<T>{{}, 3}, false, place);
    check_gem<S, T, Backend>(rows, Exponent<T>{{T(3.3)}, 0}, true, place);
  };
  for (const int64_t threads : {8, 16, 32, 256}) {
    const int64_t samples = threads == 256 ? 2 : 3;
    for (const int64_t packs : {threads * kHeldPacks, threads * kHeldPacks + 1}) check(samples, packs * kPack, 0);
    for (const int64_t n : {threads * kHeldSingly - 1, threads * kHeldSingly + 1}) check(samples, n, 0);
    check(samples, threads * kPack, 1);
  }
  check(1, 3 * 256 * kHeldPacks * kPack + 3 * kPack, 0);
  check(1, 2 * 256 * kHeldSingly + 77, 0);
}

// So many rows that a group of threads takes several.
template <class S, class T, class Backend>
void check_gem_of_many_rows() {
  for (const auto& [channels, n] : {std::pair<int64_t, int64_t>{331, 3}, {1400, 8}}) {
    const auto rows = GemRows<S, T>::random(Backend{}, 1, channels, n);
    check_gem<S, T, Backend>(rows, Exponent<T>{{}, 3}, false);
    Random random(8);
    check_gem<S, T, Backend>(rows, Exponent<T>{random.values<T>(channels, 1, 6), 0}, true);
  }
}

// Channels last: whole packs of channels and not, more than the 32 packs of a block and fewer, one channel, one
// position, and more positions than the warps of a block hold at once.
template <class S, class T, class Backend>
void check_gem_of_columns() {
  constexpr int64_t kShapes[][3] = {{2, 5, 1}, {3, 1, 49}, {2, 7, 49}, {1, 35, 66}, {2, 8, 130}, {1, 264, 9}};
  for (const auto& [samples, channels, n] : kShapes) {
    check_gem_exponents<S, T, Backend>(samples, channels, n, {true, 0});
  }
  check_gem_exponents<S, T, Backend>(2, 16, 20, {true, 1});
}

// Rows of very different sizes side by side: a power of some would overflow or vanish if nothing were scaled.
template <class S, class T, class Backend>
void check_gem_of_sizes() {
  constexpr int kStep = std::is_same_v<T, float> ? 12 : 100;
  auto rows = GemRows<S, T>::random(Backend{}, 2, 9, 37);
  rows.eps = std::ldexp(T(1), -5 * kStep);
  for (size_t i = 0; i < rows.x.size(); ++i) {
    const int channel = static_cast<int>(i) / 37 % 9;
    rows.x[i] = store<S, Backend>(std::ldexp(load<Backend>(rows.x[i]), (channel - 4) * kStep));
  }
  for (const bool channels_last : {false, true}) {
    for (const T p : {T(1), T(2), T(3), T(3.7)}) {
      for (const bool with_slope : {false, true}) {
        check_gem<S, T, Backend>(rows, Exponent<T>{{}, p}, with_slope, {channels_last, 0});
      }
    }
  }
}

template <class S, class T, class Backend>
std::vector<T> pool_one_row(const std::vector<double>& row, T p, bool with_slope = true, bool channels_last = false) {
  std::vector<S> x;
  // As the third of 8 channels that are all alike, channels last
  for (const double value : row) x.insert(x.end(), channels_last ? 8 : 1, store<S, Backend>(value));
  const int64_t channels = channels_last ? 8 : 1;
  const std::vector<T> all = Backend::repeat([&] {
    std::vector<T> out = unwritten<T>(4 * channels);
    Backend::gem_pool(static_cast<const S*>(x.data()), int64_t{1}, channels, static_cast<int64_t>(row.size()),
                      channels_last, GemExponent<T>{nullptr, 0, p}, T(1e-6), &out[0], &out[channels],
                      &out[2 * channels], with_slope ? &out[3 * channels] : nullptr);
    return out;
  });
  const int64_t c = channels_last ? 2 : 0;
  return {all[c], all[channels + c], all[2 * channels + c], all[3 * channels + c]};
}

// The largest finite values neither overflow nor lose the mean; a row below eps pools to eps; what is not finite stays.
template <class S, class T, class Backend>
void check_gem_of_extreme_rows(bool channels_last) {
  const double huge = largest_finite<S, Backend>();
  const double infinity = std::numeric_limits<double>::infinity();
  // The last does not fit the registers of a block.
  for (const int64_t n : {2, 1200, channels_last ? 100 : 10300}) {
    for (const T p : {T(1), T(3), T(6.5)}) {
      if (n > 2000 && p == T(1)) continue;
      const auto pool = [&](const std::vector<double>& row, bool with_slope = true) {
        return pool_one_row<S, T, Backend>(row, p, with_slope, channels_last)[0];
      };
      std::vector<double> row(n, huge);
      CHECK_CLOSE(pool(row) / huge, 1, gem_tolerance<T>(p));
      CHECK_CLOSE(pool(row, false) / huge, 1, gem_tolerance<T>(p));
      for (int64_t i = 0; i < n / 2; ++i) row[i] = 0;
      CHECK_CLOSE(pool(row) / huge, std::pow(0.5, 1.0 / p), gem_tolerance<T>(p));
      CHECK_CLOSE(pool(row, false) / huge, std::pow(0.5, 1.0 / p), gem_tolerance<T>(p));
      CHECK_EQUAL(pool(std::vector<double>(n, -1), false), T(1e-6));
      CHECK_CLOSE(pool(std::vector<double>(n, -1)), T(1e-6), 1e-6 * gem_tolerance<T>(p));
      row[n - 1] = infinity;
      CHECK_EQUAL(pool(row), std::numeric_limits<T>::infinity());
      for (const double sign : {1.0, -1.0}) {
        row[0] = std::copysign(std::numeric_limits<double>::quiet_NaN(), sign);
        for (const bool with_slope : {false, true}) CHECK(std::isnan(pool(row, with_slope)));
      }
    }
  }
  // The smaller quotient is no normal number, but its power is not small. The error of its logarithm, and with it the
  // relative one of the result, is a few units in the last place of the logarithm.
  const T p = T(0.02);
  const Real log_u = std::log2(static_cast<Real>(T(1e-6)) / huge);
  const double expected = std::pow((1 + std::exp2(p * log_u)) / 2, 1 / static_cast<Real>(p));
  const double allowed = gem_tolerance<T>(p) + 8 * kRoundoff<T> * std::fabs(static_cast<double>(log_u));
  for (const bool with_slope : {false, true}) {
    const T pooled = pool_one_row<S, T, Backend>({huge, 0}, p, with_slope, channels_last)[0];
    CHECK_CLOSE(pooled / huge, expected, allowed * expected);
  }
}

template <class T, class Backend>
void check_gem_exponent_gradient() {
  constexpr int64_t kShapes[][2] = {{1, 1}, {19, 5}, {3, 300}, {0, 4}, {5, 0}};
  for (const auto& [samples, channels] : kShapes) {
    Random random(7);
    const std::vector<T> grad = random.values<T>(samples * channels), slope = random.values<T>(samples * channels);
    for (const int64_t count : {int64_t{1}, channels}) {
      if (count == 0) continue;
      const std::vector<T> dp = Backend::repeat([&, samples = samples, channels = channels] {
        std::vector<double> by_channel = unwritten<double>(channels);
        std::vector<T> dp = unwritten<T>(count);
        Backend::gem_pool_exponent_gradient(grad.data(), slope.data(), samples, channels, by_channel.data(), count,
                                            dp.data());
        return dp;
      });
      std::vector<Real> expected(count, 0);
      for (int64_t e = 0; e < samples * channels; ++e)
        expected[count == 1 ? 0 : e % channels] += Real(grad[e]) * slope[e];
      // Added in double, rounded once; terms are at most 1.
      const double terms = static_cast<double>(samples * channels);
      CHECK_ALL_CLOSE(dp, expected, kRoundoff<T> * terms + kRoundoff<double> * terms * (16 + terms / 256));
    }
  }
}

template <class Backend>
void check_gem_of_nothing() {
  for (const auto& [samples, channels] : {std::pair<int64_t, int64_t>{0, 3}, {3, 0}}) {
    const auto rows = GemRows<float, float>::random(Backend{}, samples, channels, 4);
    check_gem<float, float, Backend>(rows, Exponent<float>{{}, 3}, true);
  }
}

#define PYREID_TEST_GEM_POOL_OF(Backend, name, S, T)                                                \
  TEST(rows_of_##name) { ::pyreid::test::check_gem_of_random_rows<S, T, Backend>(); }               \
  TEST(row_lengths_of_##name) { ::pyreid::test::check_gem_of_row_lengths<S, T, Backend>(); }        \
  TEST(many_rows_of_##name) { ::pyreid::test::check_gem_of_many_rows<S, T, Backend>(); }            \
  TEST(columns_of_##name) { ::pyreid::test::check_gem_of_columns<S, T, Backend>(); }                \
  TEST(extreme_rows_of_##name) { ::pyreid::test::check_gem_of_extreme_rows<S, T, Backend>(false); } \
  TEST(extreme_columns_of_##name) { ::pyreid::test::check_gem_of_extreme_rows<S, T, Backend>(true); }

#define PYREID_TEST_GEM_POOL(Backend)                                        \
  TEST(sizes) {                                                              \
    ::pyreid::test::check_gem_of_sizes<float, float, Backend>();             \
    ::pyreid::test::check_gem_of_sizes<double, double, Backend>();           \
    ::pyreid::test::check_gem_of_sizes<Backend::BFloat16, float, Backend>(); \
  }                                                                          \
  PYREID_TEST_GEM_POOL_OF(Backend, float32, float, float)                    \
  PYREID_TEST_GEM_POOL_OF(Backend, float64, double, double)                  \
  PYREID_TEST_GEM_POOL_OF(Backend, float16, Backend::Half, float)            \
  PYREID_TEST_GEM_POOL_OF(Backend, bfloat16, Backend::BFloat16, float)       \
  TEST(exponent_gradient) {                                                  \
    ::pyreid::test::check_gem_exponent_gradient<float, Backend>();           \
    ::pyreid::test::check_gem_exponent_gradient<double, Backend>();          \
  }                                                                          \
  TEST(no_rows) { ::pyreid::test::check_gem_of_nothing<Backend>(); }

}  // namespace pyreid::test
