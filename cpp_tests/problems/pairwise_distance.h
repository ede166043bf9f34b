// Tests of the pairwise_distance kernels against loops, for a backend that has them: Backend::squared_norms and so on
// call the kernels, Backend::repeat(run) runs them in several orders and returns what they all agree on.
#pragma once
#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "csrc/metric.h"

namespace pyreid::test {

inline constexpr Metric kMetrics[] = {Metric::kEuclidean, Metric::kSquaredEuclidean, Metric::kCosine};

template <class T>
struct Pairs {
  int64_t n, m, d;
  std::vector<T> x, y;  // [n, d], [m, d]

  Pairs(int64_t n, int64_t m, int64_t d, uint64_t seed = 1) : n(n), m(m), d(d) {
    Random random(seed);
    x = random.values<T>(n * d);
    y = random.values<T>(m * d);
  }

  // The matrix product that the operator's caller has done.
  std::vector<T> products() const {
    std::vector<T> out;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < m; ++j) {
        Real sum = 0;
        for (int64_t k = 0; k < d; ++k) sum += Real(x[i * d + k]) * y[j * d + k];
        out.push_back(static_cast<T>(sum));
      }
    }
    return out;
  }

  std::vector<Real> distances(Metric metric) const {
    std::vector<Real> out;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < m; ++j) {
        Real squared = 0, product = 0, xx = 0, yy = 0;
        for (int64_t k = 0; k < d; ++k) {
          const Real a = x[i * d + k], b = y[j * d + k];
          squared += (a - b) * (a - b);
          product += a * b;
          xx += a * a;
          yy += b * b;
        }
        out.push_back(metric == Metric::kSquaredEuclidean ? squared
                      : metric == Metric::kEuclidean      ? std::sqrt(squared)
                      : xx > 0 && yy > 0                  ? 1 - product / std::sqrt(xx) / std::sqrt(yy)
                                                          : Real(1));
      }
    }
    return out;
  }

  Real largest_norms() const {  // of |x_i|^2 + |y_j|^2
    const auto largest = [this](const std::vector<T>& rows) {
      Real best = 0;
      for (size_t row = 0; row < rows.size(); row += d) {
        Real sum = 0;
        for (int64_t k = 0; k < d; ++k) sum += Real(rows[row + k]) * rows[row + k];
        best = std::max(best, sum);
      }
      return best;
    };
    return d == 0 ? 0 : largest(x) + largest(y);
  }
};

template <class T, class Backend>
std::vector<T> kernel_norms(const std::vector<T>& rows, int64_t n, int64_t d) {
  std::vector<T> norms = unwritten<T>(n);
  Backend::squared_norms(rows.data(), n, d, norms.data());
  return norms;
}

template <class T, class Backend>
std::vector<T> kernel_distances(const Pairs<T>& pairs, Metric metric, bool same) {
  const std::vector<T> products = pairs.products();
  return Backend::repeat([&] {
    const std::vector<T> x_norms = kernel_norms<T, Backend>(pairs.x, pairs.n, pairs.d);
    const std::vector<T> y_norms = kernel_norms<T, Backend>(pairs.y, pairs.m, pairs.d);
    std::vector<T> out = products;
    Backend::distances_from_products(pairs.x.data(), pairs.y.data(), x_norms.data(), y_norms.data(), pairs.n, pairs.m,
                                     pairs.d, metric, same, out.data());
    return out;
  });
}

// The squared norms have a relative error of at most about (d / 16 + 16) roundoffs: a lane of a warp, or of a vector,
// adds a part of the terms, then the parts are added. |x|^2 + |y|^2 - 2 xy keeps that error in absolute terms; where
// it would be more than 64 times the result, the kernel sums differences one after another, with d roundoffs of the
// result, which is below a 64th of the norms.
template <class T>
double squared_tolerance(const Pairs<T>& pairs) {
  const double steps = static_cast<double>(pairs.d) / 8 + 16;
  return 2 * steps * kRoundoff<T> * static_cast<double>(pairs.largest_norms());
}

// d sqrt(s) = ds / (2 sqrt(s)), with s >= norms / 64 where ds is as above
template <class T>
double distance_tolerance(const Pairs<T>& pairs, Metric metric) {
  const double norms = static_cast<double>(pairs.largest_norms()), squared = squared_tolerance(pairs);
  if (metric == Metric::kSquaredEuclidean) return squared;
  if (metric == Metric::kEuclidean) return norms > 0 ? 4 * squared / std::sqrt(norms) : 0;
  return (static_cast<double>(pairs.d) / 8 + 16) * 2 * kRoundoff<T>;  // of numbers up to 1
}

template <class T, class Backend>
void check_distances_of_random_rows() {
  constexpr int64_t kShapes[][3] = {{1, 1, 1}, {3, 5, 7}, {17, 33, 64}, {40, 9, 131}};
  for (const auto& [n, m, d] : kShapes) {
    const Pairs<T> pairs(n, m, d);
    for (const Metric metric : kMetrics) {
      CHECK_ALL_CLOSE((kernel_distances<T, Backend>(pairs, metric, false)), pairs.distances(metric),
                      distance_tolerance(pairs, metric));
    }
  }
}

// `same` makes the diagonal exactly 0 and changes nothing else.
template <class T, class Backend>
void check_distances_of_rows_to_themselves() {
  Pairs<T> pairs(21, 21, 37);
  pairs.y = pairs.x;
  for (const Metric metric : kMetrics) {
    const std::vector<T> out = kernel_distances<T, Backend>(pairs, metric, true);
    CHECK_ALL_CLOSE(out, pairs.distances(metric), distance_tolerance(pairs, metric));
    for (int64_t i = 0; i < pairs.n; ++i) CHECK_EQUAL(out[i * pairs.n + i], T(0));
  }
}

// Rows that nearly coincide, far from the origin: the norms cancel, but each distance keeps its digits.
template <class T, class Backend>
void check_distances_that_cancel() {
  Pairs<T> pairs(6, 11, 50);
  Random random(2);
  for (int64_t i = 0; i < pairs.n; ++i) {
    for (int64_t k = 0; k < pairs.d; ++k) {
      pairs.x[i * pairs.d + k] = static_cast<T>(100 + k + 0.01 * random.uniform());
    }
  }
  for (int64_t j = 0; j < pairs.m; ++j) {
    for (int64_t k = 0; k < pairs.d; ++k) {
      pairs.y[j * pairs.d + k] = static_cast<T>(100 + k + 0.01 * random.uniform());
    }
  }
  std::copy_n(pairs.x.begin(), pairs.d, pairs.y.begin());  // one pair coincides
  for (const Metric metric : {Metric::kEuclidean, Metric::kSquaredEuclidean}) {
    const std::vector<T> out = kernel_distances<T, Backend>(pairs, metric, false);
    const std::vector<Real> expected = pairs.distances(metric);
    CHECK_EQUAL(out[0], T(0));
    for (size_t p = 0; p < out.size(); ++p) {
      CHECK_CLOSE(out[p], expected[p], static_cast<double>(pairs.d + 4) * kRoundoff<T> * expected[p]);
    }
  }
}

template <class T, class Backend>
void check_distances_of_extreme_rows() {
  Pairs<T> pairs(4, 4, 3);
  const T big = std::sqrt(std::numeric_limits<T>::max()) / 2;
  std::fill(pairs.x.begin(), pairs.x.begin() + 3, T(0));  // no direction
  std::fill(pairs.y.begin(), pairs.y.begin() + 3, T(0));
  // The norms and the product overflow together (infinity less infinity), the difference does not.
  for (int k = 0; k < 3; ++k) pairs.x[3 + k] = pairs.y[3 + k] = 4 * big;
  pairs.x[3] = 4 * big + big;
  pairs.x[6] = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> cosine = kernel_distances<T, Backend>(pairs, Metric::kCosine, false);
  CHECK_EQUAL(cosine[0], T(1));
  CHECK_EQUAL(cosine[3], T(1));
  const std::vector<T> euclidean = kernel_distances<T, Backend>(pairs, Metric::kEuclidean, false);
  CHECK_EQUAL(euclidean[0], T(0));
  CHECK_CLOSE(euclidean[1 * 4 + 1] / big, 1, 8 * kRoundoff<T>);
  for (int j = 0; j < 4; ++j) {
    CHECK(std::isnan(euclidean[2 * 4 + j]));
    CHECK(!std::isnan(euclidean[3 * 4 + j]));
  }
}

template <class Backend>
void check_empty_inputs() {
  constexpr int64_t kShapes[][3] = {{0, 0, 0}, {0, 4, 3}, {4, 0, 3}, {4, 5, 0}};
  for (const auto& [n, m, d] : kShapes) {
    const Pairs<float> pairs(n, m, d);
    for (const Metric metric : kMetrics) {
      const std::vector<float> out = kernel_distances<float, Backend>(pairs, metric, false);
      CHECK_EQUAL(out.size(), static_cast<size_t>(n * m));
      for (const float distance : out) CHECK_EQUAL(distance, metric == Metric::kCosine ? 1.0f : 0.0f);
    }
    std::vector<float> scale(n, 1), rows(n * d, 1);
    Backend::scaled_rows_minus(pairs.x.data(), scale.data(), n, d, rows.data());
    std::vector<float> weights(n * m), grad(n * m, 1), distance(n * m, 2), x_norms(n, 1), y_norms(m, 1), x_scale(n, 5),
        y_scale(m, 5);
    Backend::distance_gradient_weights(grad.data(), distance.data(), x_norms.data(), y_norms.data(), n, m,
                                       Metric::kEuclidean, weights.data(), x_scale.data(), y_scale.data());
    for (const float sum : x_scale) CHECK_EQUAL(sum, 0.5f * static_cast<float>(m));  // 0 where there is no column
    for (const float sum : y_scale) CHECK_EQUAL(sum, 0.5f * static_cast<float>(n));
  }
}

// What distance_gradient_weights says it computes, from any numbers in the right range.
template <class T, class Backend>
void check_gradient_weights() {
  constexpr int64_t kShapes[][2] = {{1, 1}, {3, 300}, {50, 3}, {19, 70}};
  for (const auto& [n, m] : kShapes) {
    Random random(3);
    const std::vector<T> grad = random.values<T>(n * m), y_norms = random.values<T>(m, 0.5, 2);
    std::vector<T> distance = random.values<T>(n * m, 0.25, 2), x_norms = random.values<T>(n, 0.5, 2);
    distance[0] = 0;     // the Euclidean norm has no gradient there
    x_norms[n - 1] = 0;  // and the cosine none here
    for (const Metric metric : kMetrics) {
      const auto [weights, x_scale, y_scale] = Backend::repeat([&, n = n, m = m] {
        std::tuple out{unwritten<T>(n * m), unwritten<T>(n), unwritten<T>(m)};
        Backend::distance_gradient_weights(grad.data(), distance.data(), x_norms.data(), y_norms.data(), n, m, metric,
                                           std::get<0>(out).data(), std::get<1>(out).data(), std::get<2>(out).data());
        return out;
      });
      std::vector<Real> w(n * m), xs(n, 0), ys(m, 0);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < m; ++j) {
          const Real g = grad[i * m + j], dist = distance[i * m + j], xx = x_norms[i], yy = y_norms[j];
          Real& weight = w[i * m + j];
          if (metric == Metric::kCosine) {
            weight = xx > 0 ? g / std::sqrt(xx * yy) : 0;
            if (xx > 0) xs[i] += g * (1 - dist) / xx;
            ys[j] += g * (1 - dist) / yy;
          } else {
            weight = metric == Metric::kSquaredEuclidean ? 2 * g : dist > 0 ? g / dist : 0;
            xs[i] += weight;
            ys[j] += weight;
          }
        }
      }
      // Weights are at most 4, terms of the scales likewise; a column is added up by one thread.
      CHECK_ALL_CLOSE(weights, w, 4 * 8 * kRoundoff<T>);
      CHECK_ALL_CLOSE(x_scale, xs, 4 * 8 * kRoundoff<T> * static_cast<double>(m));
      CHECK_ALL_CLOSE(y_scale, ys, 4 * 8 * kRoundoff<T> * static_cast<double>(n));
    }
  }
}

// The kernels in the order of the operator's backward give the gradient of sum(g * distance).
template <class Backend>
void check_gradients() {
  const Pairs<double> pairs(9, 13, 40);
  const int64_t n = pairs.n, m = pairs.m, d = pairs.d;
  Random random(4);
  const std::vector<double> grad = random.values<double>(n * m);
  for (const Metric metric : kMetrics) {
    const std::vector<double> distance = kernel_distances<double, Backend>(pairs, metric, false);
    const auto [dx, dy] = Backend::repeat([&] {
      const auto x_norms = kernel_norms<double, Backend>(pairs.x, n, d);
      const auto y_norms = kernel_norms<double, Backend>(pairs.y, m, d);
      auto weights = unwritten<double>(n * m), x_scale = unwritten<double>(n), y_scale = unwritten<double>(m);
      Backend::distance_gradient_weights(grad.data(), distance.data(), x_norms.data(), y_norms.data(), n, m, metric,
                                         weights.data(), x_scale.data(), y_scale.data());
      std::vector<double> dx(n * d, 0), dy(m * d, 0);  // the products with the weights are the caller's
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < m; ++j) {
          for (int64_t k = 0; k < d; ++k) {
            dx[i * d + k] += weights[i * m + j] * pairs.y[j * d + k];
            dy[j * d + k] += weights[i * m + j] * pairs.x[i * d + k];
          }
        }
      }
      Backend::scaled_rows_minus(pairs.x.data(), x_scale.data(), n, d, dx.data());
      Backend::scaled_rows_minus(pairs.y.data(), y_scale.data(), m, d, dy.data());
      return std::tuple{dx, dy};
    });
    std::vector<Real> ex(n * d, 0), ey(m * d, 0);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < m; ++j) {
        const double* x = &pairs.x[i * d];
        const double* y = &pairs.y[j * d];
        Real squared = 0, product = 0, xx = 0, yy = 0;
        for (int64_t k = 0; k < d; ++k) {
          squared += (Real(x[k]) - y[k]) * (Real(x[k]) - y[k]);
          product += Real(x[k]) * y[k];
          xx += Real(x[k]) * x[k];
          yy += Real(y[k]) * y[k];
        }
        const Real g = grad[i * m + j], root = std::sqrt(xx * yy);
        for (int64_t k = 0; k < d; ++k) {
          if (metric == Metric::kCosine) {
            ex[i * d + k] -= g * (y[k] / root - product / root * x[k] / xx);
            ey[j * d + k] -= g * (x[k] / root - product / root * y[k] / yy);
          } else {
            const Real step = (metric == Metric::kEuclidean ? g / std::sqrt(squared) : 2 * g) * (Real(x[k]) - y[k]);
            ex[i * d + k] += step;
            ey[j * d + k] -= step;
          }
        }
      }
    }
    // Up to 13 terms of at most 2 (|x| + |y|) <= 4, from distances with the error above.
    const double allowed = 13 * 4 * 64 * kRoundoff<double>;
    CHECK_ALL_CLOSE(dx, ex, allowed);
    CHECK_ALL_CLOSE(dy, ey, allowed);
  }
}

#define PYREID_TEST_PAIRWISE_DISTANCE(Backend)                                \
  TEST(distances_of_random_rows) {                                            \
    ::pyreid::test::check_distances_of_random_rows<float, Backend>();         \
    ::pyreid::test::check_distances_of_random_rows<double, Backend>();        \
  }                                                                           \
  TEST(distances_of_rows_to_themselves) {                                     \
    ::pyreid::test::check_distances_of_rows_to_themselves<float, Backend>();  \
    ::pyreid::test::check_distances_of_rows_to_themselves<double, Backend>(); \
  }                                                                           \
  TEST(distances_that_cancel) {                                               \
    ::pyreid::test::check_distances_that_cancel<float, Backend>();            \
    ::pyreid::test::check_distances_that_cancel<double, Backend>();           \
  }                                                                           \
  TEST(distances_of_extreme_rows) {                                           \
    ::pyreid::test::check_distances_of_extreme_rows<float, Backend>();        \
    ::pyreid::test::check_distances_of_extreme_rows<double, Backend>();       \
  }                                                                           \
  TEST(empty_inputs) { ::pyreid::test::check_empty_inputs<Backend>(); }       \
  TEST(gradient_weights) {                                                    \
    ::pyreid::test::check_gradient_weights<float, Backend>();                 \
    ::pyreid::test::check_gradient_weights<double, Backend>();                \
  }                                                                           \
  TEST(gradients) { ::pyreid::test::check_gradients<Backend>(); }

}  // namespace pyreid::test
