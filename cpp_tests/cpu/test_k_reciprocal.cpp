// The stages of re-ranking against sets and dense matrices; the whole method is tested from Python.
#include "csrc/cpu/k_reciprocal.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "cpp_tests/cpu/splits.h"

namespace {

using namespace pyreid;
using test::Random;
using test::Real;

std::vector<int32_t> random_lists(int64_t n, int64_t k, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> lists;
  for (int64_t i = 0; i < n; ++i) {
    std::vector<int32_t> near;  // of a ring, so that neighbors are often reciprocal; i itself sometimes missing
    while (static_cast<int64_t>(near.size()) < k) {
      const int64_t j = (i + random.below(2 * k + 3) - k - 1 + n) % n;
      if (std::find(near.begin(), near.end(), j) == near.end()) near.push_back(static_cast<int32_t>(j));
    }
    lists.insert(lists.end(), near.begin(), near.end());
  }
  return lists;
}

template <class T>
struct Matrix {
  std::vector<int64_t> starts;
  std::vector<int32_t> columns;
  std::vector<T> weights;
  cpu::SparseRows<T> view() const {
    return {static_cast<int64_t>(starts.size()) - 1, starts.data(), columns.data(), weights.data()};
  }
  std::map<int32_t, T> row(int64_t i) const {
    std::map<int32_t, T> entries;
    for (int64_t e = starts[static_cast<size_t>(i)]; e < starts[static_cast<size_t>(i + 1)]; ++e) {
      entries[columns[static_cast<size_t>(e)]] = weights[static_cast<size_t>(e)];
    }
    return entries;
  }
};

template <class T>
Matrix<T> random_matrix(int64_t rows, uint64_t seed) {
  Random random(seed);
  Matrix<T> matrix{{0}, {}, {}};
  for (int64_t i = 0; i < rows; ++i) {
    std::set<int32_t> columns;
    for (int64_t count = random.below(9); count > 0; --count) {  // also none
      columns.insert(static_cast<int32_t>(random.below(rows)));
    }
    for (const int32_t column : columns) {
      matrix.columns.push_back(column);
      matrix.weights.push_back(static_cast<T>(random.uniform() / 9));
    }
    matrix.starts.push_back(static_cast<int64_t>(matrix.columns.size()));
  }
  return matrix;
}

void check_sets(int64_t n, int64_t k, int64_t forward, int64_t half) {
  const std::vector<int32_t> lists = random_lists(n, k, static_cast<uint64_t>(n + half));
  const auto [starts, columns] = test::in_every_split([&](const cpu::ParallelFor& split) {
    const auto sets = cpu::reciprocal_sets({lists.data(), n, k}, forward, half, split);
    return std::tuple{sets.starts, sets.columns};
  });
  const auto reciprocal = [&](int64_t i, int64_t length) {
    std::set<int32_t> own;
    for (int64_t a = 0; a < length; ++a) {
      const int32_t j = lists[static_cast<size_t>(i * k + a)];
      const auto begin = lists.begin() + j * k;
      if (std::find(begin, begin + length, i) != begin + length) own.insert(j);
    }
    return own;
  };
  CHECK_EQUAL(static_cast<int64_t>(starts.size()), n + 1);
  for (int64_t i = 0; i < n; ++i) {
    const std::set<int32_t> own = reciprocal(i, forward);
    std::set<int32_t> expanded = own;
    for (const int32_t candidate : own) {
      const std::set<int32_t> theirs = reciprocal(candidate, half);
      double common = 0;
      for (const int32_t j : theirs) common += static_cast<double>(own.count(j));
      if (common > 2.0 / 3 * static_cast<double>(theirs.size())) expanded.insert(theirs.begin(), theirs.end());
    }
    const std::vector<int32_t> row(columns.begin() + starts[static_cast<size_t>(i)],
                                   columns.begin() + starts[static_cast<size_t>(i + 1)]);
    CHECK(row == std::vector<int32_t>(expanded.begin(), expanded.end()));
  }
}

template <class T>
void check_weights(int64_t rows) {
  Matrix<T> distances = random_matrix<T>(rows, 3);
  for (T& distance : distances.weights) distance *= T(9000);  // whose exponentials all underflow, but for the shift
  const auto weights = test::in_every_split([&](const cpu::ParallelFor& split) {
    auto out = test::unwritten<T>(static_cast<int64_t>(distances.columns.size()));
    cpu::reciprocal_weights(distances.view(), out.data(), split);
    return out;
  });
  for (int64_t i = 0; i < rows; ++i) {
    Real least = 1e9L, sum = 0;
    for (const auto& [column, distance] : distances.row(i)) least = std::min<Real>(least, distance);
    for (const auto& [column, distance] : distances.row(i)) sum += std::exp(least - static_cast<Real>(distance));
    for (int64_t e = distances.starts[static_cast<size_t>(i)]; e < distances.starts[static_cast<size_t>(i + 1)]; ++e) {
      const Real difference = least - static_cast<Real>(distances.weights[static_cast<size_t>(e)]);
      const Real want = std::exp(difference) / sum;
      // the rounded difference, the exponential, the sum and the quotient
      const Real error = static_cast<Real>(test::kRoundoff<T>) * (std::abs(difference) + 5 + 9);
      CHECK_CLOSE(static_cast<double>(weights[static_cast<size_t>(e)]), static_cast<double>(want),
                  static_cast<double>(want * error + std::numeric_limits<T>::min()));
    }
  }
}

template <class T>
void check_means(int64_t rows, int64_t k2) {
  const Matrix<T> matrix = random_matrix<T>(rows, 5);
  const std::vector<int32_t> lists = random_lists(rows, k2, 6);
  const auto [starts, columns, weights] = test::in_every_split([&](const cpu::ParallelFor& split) {
    const auto means = cpu::mean_rows(matrix.view(), {lists.data(), rows, k2}, k2, split);
    return std::tuple{means.starts, means.columns, means.weights};
  });
  const Matrix<T> means{starts, columns, weights};
  for (int64_t i = 0; i < rows; ++i) {
    std::map<int32_t, T> want;
    for (int64_t a = 0; a < k2; ++a) {
      for (const auto& [column, weight] : matrix.row(lists[static_cast<size_t>(i * k2 + a)])) want[column] += weight;
    }
    for (auto& [column, sum] : want) sum /= static_cast<T>(k2);
    CHECK(means.row(i) == want);
    CHECK(std::is_sorted(columns.begin() + starts[static_cast<size_t>(i)],
                         columns.begin() + starts[static_cast<size_t>(i + 1)]));
  }
}

template <class T>
void check_columns(int64_t rows, int64_t first) {
  const Matrix<T> matrix = random_matrix<T>(rows, 8);
  const size_t entries = static_cast<size_t>(matrix.starts.back() - matrix.starts[static_cast<size_t>(first)]);
  Matrix<T> by{std::vector<int64_t>(static_cast<size_t>(rows + 1)), std::vector<int32_t>(entries),
               std::vector<T>(entries)};
  cpu::by_columns(matrix.view(), first, by.starts.data(), by.columns.data(), by.weights.data());
  CHECK_EQUAL(by.starts.back(), static_cast<int64_t>(entries));
  for (int64_t c = 0; c < rows; ++c) {
    std::map<int32_t, T> want;
    for (int64_t i = first; i < rows; ++i) {
      const auto row = matrix.row(i);
      const auto found = row.find(static_cast<int32_t>(c));
      if (found != row.end()) want[static_cast<int32_t>(i - first)] = found->second;
    }
    CHECK(by.row(c) == want);
  }
}

template <class T>
void check_strip(int64_t num_query, int64_t num_gallery, bool products, bool squared, bool clip) {
  const int64_t items = num_query + num_gallery, stride = num_gallery + 3;
  const Matrix<T> matrix = random_matrix<T>(items, 11);
  const size_t entries = static_cast<size_t>(matrix.starts.back() - matrix.starts[static_cast<size_t>(num_query)]);
  Matrix<T> by{std::vector<int64_t>(static_cast<size_t>(items + 1)), std::vector<int32_t>(entries),
               std::vector<T>(entries)};
  cpu::by_columns(matrix.view(), num_query, by.starts.data(), by.columns.data(), by.weights.data());
  cpu::SparseRows<T> gallery = by.view();
  Random random(1);
  const auto given = random.values<T>(num_query * stride);
  const auto offset = random.values<T>(num_gallery, 0, 1), norms = random.values<T>(num_query, 0, 2);
  auto limits = random.values<T>(num_query, 1, 2), divisors = limits;
  limits[0] = divisors[0] = 0;  // all items are equal
  cpu::SparseRows<T> queries = matrix.view();
  queries.rows = num_query;
  const double lambda = 0.3;
  const auto result = test::in_every_split([&](const cpu::ParallelFor& split) {
    auto values = given;
    cpu::re_rank_strip<T>({values.data(), num_query, num_gallery, stride, products ? offset.data() : nullptr,
                           products ? norms.data() : nullptr, products ? limits.data() : nullptr,
                           products ? divisors.data() : nullptr, squared, queries, gallery, lambda, clip},
                          split);
    return values;
  });
  for (int64_t q = 0; q < num_query; ++q) {
    for (int64_t g = 0; g < stride; ++g) {
      const size_t at = static_cast<size_t>(q * stride + g);
      if (g >= num_gallery) {
        CHECK_EQUAL(result[at], given[at]);
        continue;
      }
      Real m = 0, distance = given[at];
      const auto theirs = matrix.row(num_query + g);
      for (const auto& [column, weight] : matrix.row(q)) {
        if (const auto found = theirs.find(column); found != theirs.end()) m += std::min(weight, found->second);
      }
      if (products) {
        const Real limit = limits[static_cast<size_t>(q)];
        distance = norms[static_cast<size_t>(q)] + 2 * (offset[static_cast<size_t>(g)] - distance);
        distance = std::min(std::max<Real>(distance, 0), limit) / (limit > 0 ? limit : 1);
        if (squared) distance *= distance;
      }
      const Real jaccard = 1 - m / (2 - m);
      const Real want = (1 - static_cast<Real>(lambda)) * (clip ? std::max<Real>(jaccard, 0) : jaccard) +
                        static_cast<Real>(lambda) * distance;
      // 9 overlaps, each of which counts twice, 7 roundings of the distance (norm + 2 (offset - p) is up to 7), and 6
      CHECK_CLOSE(static_cast<double>(result[at]), static_cast<double>(want), test::kRoundoff<T> * (18 + 4 * 7 + 6));
    }
  }
}

template <class T>
void check_strips() {
  for (const bool products : {false, true}) {
    check_strip<T>(3, 1, products, false, false);
    check_strip<T>(5, 70, products, products, true);
    check_strip<T>(9, 131, products, false, true);
  }
}

}  // namespace

TEST(sets) {
  check_sets(5, 3, 3, 2);
  check_sets(40, 21, 21, 11);
  check_sets(600, 7, 6, 4);
  check_sets(600, 7, 7, 1);
}
TEST(float_weights) { check_weights<float>(600); }
TEST(double_weights) { check_weights<double>(600); }
TEST(float_means) { check_means<float>(600, 6); }
TEST(double_means) { check_means<double>(60, 2); }
TEST(float_columns) {
  check_columns<float>(70, 20);
  check_columns<float>(70, 70);
}
TEST(double_columns) { check_columns<double>(70, 0); }
TEST(float_strips) { check_strips<float>(); }
TEST(double_strips) { check_strips<double>(); }

TEST(distances_of_pairs) {
  const std::vector<double> x{0, 0, 3, 4, 1, 1};
  const std::vector<int64_t> starts{0, 2, 2, 4};
  const std::vector<int32_t> columns{0, 1, 1, 2};
  const auto distances = test::in_every_split([&](const cpu::ParallelFor& split) {
    auto out = test::unwritten<double>(4);
    cpu::pair_distances(x.data(), 2, {3, starts.data(), columns.data(), nullptr}, out.data(), split);
    return out;
  });
  CHECK(distances == std::vector<double>{0, 25, 13, 0});
}

TEST(no_items) {
  const auto sets = cpu::reciprocal_sets({nullptr, 0, 1}, 1, 1, test::whole);
  CHECK(sets.starts == std::vector<int64_t>{0});
  CHECK(sets.columns.empty());
}
