// Tests of the gate_and_pool kernels against loops, for a backend that has them (problems/pairwise_distance.h).
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "cpp_tests/problems/storage.h"

namespace pyreid::test {

template <class S>
struct GateProblem {
  int64_t rows, n;
  std::vector<S> x, gate, dlocal, davg, dlargest;

  template <class Backend>
  static GateProblem random(Backend, int64_t rows, int64_t n) {
    GateProblem problem{rows, n, {}, {}, {}, {}, {}};
    Random random(13);
    const auto fill = [&](std::vector<S>& values, int64_t count, double size) {
      for (int64_t i = 0; i < count; ++i) values.push_back(store<S, Backend>(size * (2 * random.uniform() - 1)));
    };
    fill(problem.x, rows * n, 2);
    fill(problem.gate, rows * n, 8);
    fill(problem.dlocal, rows * n, 1);
    fill(problem.davg, rows, 1);
    fill(problem.dlargest, rows, 1);
    return problem;
  }
};

template <class S>
struct GateResult {
  std::vector<S> local, avg, largest;
  std::vector<int64_t> index;
};

template <class S, class Backend>
GateResult<S> gated(const GateProblem<S>& problem) {
  const auto [local, avg, largest, index] = Backend::repeat([&] {
    const S nan = store<S, Backend>(NAN);
    std::tuple out{std::vector<S>(problem.x.size(), nan), std::vector<S>(problem.rows, nan),
                   std::vector<S>(problem.rows, nan), std::vector<int64_t>(problem.rows, -1)};
    auto& [local, avg, largest, index] = out;
    Backend::gate_and_pool(problem.x.data(), problem.gate.data(), problem.rows, problem.n, local.data(), avg.data(),
                           largest.data(), index.data());
    return out;
  });
  return {local, avg, largest, index};
}

// Which gradients come in (1 dlocal, 2 davg, 4 dlargest) and which go out (1 dx, 2 dgate).
template <class S, class Backend>
auto gate_gradients(const GateProblem<S>& problem, const std::vector<int64_t>& index, int given, int wanted) {
  return Backend::repeat([&] {
    const S nan = store<S, Backend>(NAN);
    std::tuple out{std::vector<S>(wanted & 1 ? problem.x.size() : 0, nan),
                   std::vector<S>(wanted & 2 ? problem.x.size() : 0, nan)};
    auto& [dx, dgate] = out;
    Backend::gate_and_pool_gradient(
        given & 1 ? problem.dlocal.data() : nullptr, given & 2 ? problem.davg.data() : nullptr,
        given & 4 ? problem.dlargest.data() : nullptr, problem.x.data(), problem.gate.data(), index.data(),
        problem.rows, problem.n, wanted & 1 ? dx.data() : nullptr, wanted & 2 ? dgate.data() : nullptr);
    return out;
  });
}

// The sigmoid is within 6 roundoffs (an exponential, a sum, a reciprocal, a product), an element or a gradient within
// 16. The average adds at most 64 elements, or every 256th of a long row, one after the other, and then partial sums.
template <class S, class T, class Backend>
void check_gate(const GateProblem<S>& problem, int given, int wanted) {
  const auto result = gated<S, Backend>(problem);
  const auto [dx, dgate] = gate_gradients<S, Backend>(problem, result.index, given, wanted);
  constexpr double kStorage = storage_roundoff<S, Backend>(), kSubnormal = kIsHalf<S, Backend> ? 0x1p-25 : 0;
  const auto check_one = [&](S actual, Real expected, Real size, double roundings) {
    const double scale = static_cast<double>(size), value = std::fabs(static_cast<double>(expected));
    CHECK_CLOSE(load<Backend>(actual), expected, roundings * kRoundoff<T> * scale + kStorage * value + kSubnormal);
  };
  const Real n = problem.n;
  for (int64_t r = 0; r < problem.rows; ++r) {
    Real sum = 0, largest = 0;
    std::vector<Real> values;
    for (int64_t i = r * problem.n; i < (r + 1) * problem.n; ++i) {
      const Real x = load<Backend>(problem.x[i]), s = 1 / (1 + std::exp(-Real(load<Backend>(problem.gate[i]))));
      const Real value = x > 0 ? x * s : 0;
      check_one(result.local[i], value, value, 16);
      values.push_back(value);
      sum += value;
      largest = std::max(largest, value);

      Real g = 0, size = 0;
      const auto add = [&](int bit, Real term) {
        if (!(given & bit)) return;
        g += term;
        size += std::fabs(term);
      };
      add(1, load<Backend>(problem.dlocal[i]));
      add(2, load<Backend>(problem.davg[r]) / n);
      if (result.index[r] == i - r * problem.n) add(4, load<Backend>(problem.dlargest[r]));
      const Real slope = x * s * (1 - s);
      if (wanted & 1) check_one(dx[i], x > 0 ? g * s : 0, size * s, 16);
      if (wanted & 2) check_one(dgate[i], x > 0 ? g * slope : 0, size * std::fabs(slope), 16);
    }
    check_one(result.avg[r], sum / n, sum / n, 96 + static_cast<double>(n) / 256);
    check_one(result.largest[r], largest, largest, 16);
    // One of the values that could be the largest after rounding
    const int64_t place = result.index[r];
    CHECK(place >= 0 && place < problem.n);
    CHECK_CLOSE(values[place], largest, 32 * kRoundoff<T> * static_cast<double>(largest));
    if constexpr (kStorage == 0) {
      CHECK_EQUAL(result.local[r * problem.n + place], result.largest[r]);
      for (int64_t i = 0; i < place; ++i) CHECK(result.local[r * problem.n + i] < result.largest[r]);
    }
  }
}

template <class S, class T, class Backend>
void check_gate_of_random_rows() {
  // Fewer positions than a warp has lanes, and more than 1024; more rows than blocks of either kind; more elements than
  // one thread takes
  constexpr int64_t kShapes[][2] = {{1, 1}, {15, 49}, {26, 128}, {7, 1037}, {43, 33}, {3, 2}, {0, 5}, {80, 1037}};
  for (const auto& [rows, n] : kShapes) {
    check_gate<S, T, Backend>(GateProblem<S>::random(Backend{}, rows, n), 7, 3);
  }
  const auto problem = GateProblem<S>::random(Backend{}, 3, 75);
  for (int given = 0; given < 7; ++given) check_gate<S, T, Backend>(problem, given, 3);
  for (int wanted = 0; wanted < 3; ++wanted) check_gate<S, T, Backend>(problem, 7, wanted);
}

// Of equal values the first is the largest, of NaNs too; a row of zeros has its first place; the gradient goes there
// alone, and nowhere if the value is 0.
template <class S, class T, class Backend>
void check_gate_of_ties() {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const int64_t n : {3, 31, 200, 1100}) {
    for (const int64_t first : {int64_t{0}, n / 3, n / 2, n - 2}) {
      auto problem = GateProblem<S>::random(Backend{}, 3, n);
      for (int64_t i = 0; i < n; ++i) {
        problem.x[i] = store<S, Backend>(i == first || i == n - 1 || i == first + (n - first) / 2 ? 5 : 0.25);
        problem.gate[i] = problem.gate[0];
        problem.x[n + i] = store<S, Backend>(-std::fabs(load<Backend>(problem.x[n + i])));
      }
      problem.x[2 * n + first] = problem.gate[2 * n + n - 1] = store<S, Backend>(nan);
      const auto result = gated<S, Backend>(problem);
      CHECK_EQUAL(result.index[0], first);
      CHECK_EQUAL(result.index[1], 0);
      CHECK_EQUAL(load<Backend>(result.largest[1]), 0);
      CHECK_EQUAL(load<Backend>(result.avg[1]), 0);
      CHECK_EQUAL(result.index[2], first);
      CHECK(std::isnan(load<Backend>(result.largest[2])));
      CHECK(std::isnan(load<Backend>(result.avg[2])));
      const auto [dx, dgate] = gate_gradients<S, Backend>(problem, result.index, 4, 3);
      for (int64_t i = 0; i < 2 * n; ++i) {
        CHECK_EQUAL(load<Backend>(dx[i]) != 0, i == first);
        CHECK_EQUAL(load<Backend>(dgate[i]) != 0, i == first);
      }
    }
  }
}

// Gates that saturate: the sigmoid is 0 or 1, with no overflow on the way, and its complement keeps its digits.
template <class S, class T, class Backend>
void check_gate_that_saturates() {
  GateProblem<S> problem{1, 4, {}, {}, {}, {}, {}};
  for (const double gate : {-30000.0, 30000.0, 12.0, -12.0}) {
    problem.gate.push_back(store<S, Backend>(gate));
    problem.x.push_back(store<S, Backend>(1));
    problem.dlocal.push_back(store<S, Backend>(1));
  }
  const auto result = gated<S, Backend>(problem);
  const auto [dx, dgate] = gate_gradients<S, Backend>(problem, result.index, 1, 3);
  const Real small = 1 / (1 + std::exp(Real(12))), slope = small * (1 - small);
  const double relative = 16 * kRoundoff<T> + storage_roundoff<S, Backend>();
  const std::vector<Real> expected{0, 1, 1 - small, small}, slopes{0, 0, slope, slope};
  for (int64_t i = 0; i < 4; ++i) {
    const double step = kIsHalf<S, Backend> ? 0x1p-25 : 0;  // half that of the subnormals
    CHECK_CLOSE(load<Backend>(result.local[i]), expected[i], relative * static_cast<double>(expected[i]) + step);
    CHECK_CLOSE(load<Backend>(dx[i]), expected[i], relative * static_cast<double>(expected[i]) + step);
    CHECK_CLOSE(load<Backend>(dgate[i]), slopes[i], relative * static_cast<double>(slopes[i]) + step);
  }
}

#define PYREID_TEST_GATE_AND_POOL(Backend)                                                                   \
  TEST(rows_of_float32) { ::pyreid::test::check_gate_of_random_rows<float, float, Backend>(); }              \
  TEST(rows_of_float64) { ::pyreid::test::check_gate_of_random_rows<double, double, Backend>(); }            \
  TEST(rows_of_float16) { ::pyreid::test::check_gate_of_random_rows<Backend::Half, float, Backend>(); }      \
  TEST(rows_of_bfloat16) { ::pyreid::test::check_gate_of_random_rows<Backend::BFloat16, float, Backend>(); } \
  TEST(ties) {                                                                                               \
    ::pyreid::test::check_gate_of_ties<float, float, Backend>();                                             \
    ::pyreid::test::check_gate_of_ties<double, double, Backend>();                                           \
    ::pyreid::test::check_gate_of_ties<Backend::Half, float, Backend>();                                     \
    ::pyreid::test::check_gate_of_ties<Backend::BFloat16, float, Backend>();                                 \
  }                                                                                                          \
  TEST(saturated_gates) {                                                                                    \
    ::pyreid::test::check_gate_that_saturates<float, float, Backend>();                                      \
    ::pyreid::test::check_gate_that_saturates<double, double, Backend>();                                    \
    ::pyreid::test::check_gate_that_saturates<Backend::Half, float, Backend>();                              \
    ::pyreid::test::check_gate_that_saturates<Backend::BFloat16, float, Backend>();                          \
  }

}  // namespace pyreid::test
