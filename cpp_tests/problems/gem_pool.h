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
  std::vector<S> x;
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

template <class S, class T, class Backend>
void check_gem(const GemRows<S, T>& rows, const Exponent<T>& exponent, bool with_slope) {
  const int64_t count = rows.samples * rows.channels;
  const auto [pooled, largest, factor, slope, dx] = Backend::repeat([&] {
    std::tuple out{unwritten<T>(count), unwritten<T>(count), unwritten<T>(count), unwritten<T>(with_slope ? count : 0),
                   std::vector<S>(rows.x.size(), store<S, Backend>(NAN))};
    auto& [pooled, largest, factor, slope, dx] = out;
    Backend::gem_pool(rows.x.data(), rows.samples, rows.channels, rows.n, exponent.kernel_argument(), rows.eps,
                      pooled.data(), largest.data(), factor.data(), with_slope ? slope.data() : nullptr);
    Backend::gem_pool_gradient(static_cast<const T*>(rows.grad.data()), rows.x.data(),
                               static_cast<const T*>(largest.data()), static_cast<const T*>(factor.data()),
                               rows.samples, rows.channels, rows.n, exponent.kernel_argument(), rows.eps, dx.data());
    return out;
  });
  const GemReference expected = gem_reference<S, T, Backend>(rows, exponent);
  for (int64_t r = 0; r < count; ++r) {
    const double relative = gem_tolerance<T>(exponent.of(r % rows.channels));
    CHECK_CLOSE(pooled[r], expected.pooled[r], relative * expected.pooled[r]);
    if (with_slope) CHECK_CLOSE(slope[r], expected.dp_terms[r], relative * expected.dp_sizes[r]);
    for (int64_t i = r * rows.n; i < (r + 1) * rows.n; ++i) {
      const double size = std::fabs(static_cast<double>(expected.dx[i]));
      // The smallest step of a half type is that of its subnormals.
      CHECK_CLOSE(load<Backend>(dx[i]), expected.dx[i], (relative + storage_roundoff<S, Backend>()) * size + 0x1p-24);
    }
  }
}

template <class S, class T, class Backend>
void check_gem_of_random_rows() {
  // Fewer positions than a warp has lanes, and more than 1024; more rows than blocks of either kind
  constexpr int64_t kShapes[][3] = {{1, 1, 1}, {3, 5, 49}, {2, 13, 128}, {3, 3, 1030}, {2, 4, 33}};
  for (const auto& [samples, channels, n] : kShapes) {
    const auto rows = GemRows<S, T>::random(Backend{}, samples, channels, n);
    for (const double p : {1.0, 2.0, 3.0, 3.7, 0.5}) {
      check_gem<S, T, Backend>(rows, Exponent<T>{{}, static_cast<T>(p)}, p > 2.5);
    }
    check_gem<S, T, Backend>(rows, Exponent<T>{{T(2.9)}, 0}, true);
    Random random(6);
    check_gem<S, T, Backend>(rows, Exponent<T>{random.values<T>(channels, 1, 6), 0}, true);
  }
}

template <class S, class T, class Backend>
std::vector<T> pool_one_row(const std::vector<double>& row, T p, bool with_slope = true) {
  std::vector<S> x;
  for (const double value : row) x.push_back(store<S, Backend>(value));
  return Backend::repeat([&] {
    std::vector<T> out = unwritten<T>(4);
    Backend::gem_pool(static_cast<const S*>(x.data()), int64_t{1}, int64_t{1}, static_cast<int64_t>(x.size()),
                      GemExponent<T>{nullptr, 0, p}, T(1e-6), &out[0], &out[1], &out[2],
                      with_slope ? &out[3] : nullptr);
    return out;
  });
}

// The largest finite values neither overflow nor lose the mean; a row below eps pools to eps; what is not finite stays.
template <class S, class T, class Backend>
void check_gem_of_extreme_rows() {
  const double huge = largest_finite<S, Backend>();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const int64_t n : {2, 1200}) {
    for (const T p : {T(1), T(3), T(6.5)}) {
      std::vector<double> row(n, huge);
      CHECK_CLOSE((pool_one_row<S, T, Backend>(row, p)[0] / huge), 1, gem_tolerance<T>(p));
      for (int64_t i = 0; i < n / 2; ++i) row[i] = 0;
      CHECK_CLOSE((pool_one_row<S, T, Backend>(row, p)[0] / huge), std::pow(0.5, 1.0 / p), gem_tolerance<T>(p));
      CHECK_CLOSE((pool_one_row<S, T, Backend>(std::vector<double>(n, -1), p)[0]), T(1e-6), 1e-6 * gem_tolerance<T>(p));
      row[n - 1] = infinity;
      CHECK_EQUAL((pool_one_row<S, T, Backend>(row, p)[0]), std::numeric_limits<T>::infinity());
      row[0] = std::numeric_limits<double>::quiet_NaN();
      for (const bool with_slope : {false, true}) {
        CHECK(std::isnan(pool_one_row<S, T, Backend>(row, p, with_slope)[0]));
      }
    }
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

#define PYREID_TEST_GEM_POOL(Backend)                                                                       \
  TEST(rows_of_float32) { ::pyreid::test::check_gem_of_random_rows<float, float, Backend>(); }              \
  TEST(rows_of_float64) { ::pyreid::test::check_gem_of_random_rows<double, double, Backend>(); }            \
  TEST(rows_of_float16) { ::pyreid::test::check_gem_of_random_rows<Backend::Half, float, Backend>(); }      \
  TEST(rows_of_bfloat16) { ::pyreid::test::check_gem_of_random_rows<Backend::BFloat16, float, Backend>(); } \
  TEST(extreme_rows) {                                                                                      \
    ::pyreid::test::check_gem_of_extreme_rows<float, float, Backend>();                                     \
    ::pyreid::test::check_gem_of_extreme_rows<double, double, Backend>();                                   \
    ::pyreid::test::check_gem_of_extreme_rows<Backend::Half, float, Backend>();                             \
    ::pyreid::test::check_gem_of_extreme_rows<Backend::BFloat16, float, Backend>();                         \
  }                                                                                                         \
  TEST(exponent_gradient) {                                                                                 \
    ::pyreid::test::check_gem_exponent_gradient<float, Backend>();                                          \
    ::pyreid::test::check_gem_exponent_gradient<double, Backend>();                                         \
  }                                                                                                         \
  TEST(no_rows) { ::pyreid::test::check_gem_of_nothing<Backend>(); }

}  // namespace pyreid::test
