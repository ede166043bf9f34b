// The kernels of re-ranking on CUDA against sets and loops; the whole method is tested from Python.
#include "csrc/cuda/k_reciprocal.cuh"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "cpp_tests/schedule.h"

namespace {

using namespace pyreid;
using test::Random;
using test::Real;

size_t at(int64_t i) { return static_cast<size_t>(i); }

std::vector<int32_t> random_lists(int64_t n, int64_t k, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> lists;
  for (int64_t i = 0; i < n; ++i) {
    std::vector<int32_t> near;  // of a ring, so that neighbors are often reciprocal; i itself sometimes missing
    while (static_cast<int64_t>(near.size()) < k) {
      const int64_t reach = std::min(n, 2 * k + 3), j = (i + random.below(reach) - reach / 2 + n) % n;
      if (std::find(near.begin(), near.end(), j) == near.end()) near.push_back(static_cast<int32_t>(j));
    }
    lists.insert(lists.end(), near.begin(), near.end());
  }
  return lists;
}

std::set<int32_t> reciprocal(const std::vector<int32_t>& lists, int64_t k, int64_t i, int64_t length) {
  std::set<int32_t> own;
  for (int64_t a = 0; a < length; ++a) {
    const int32_t j = lists[at(i * k + a)];
    const auto begin = lists.begin() + j * k;
    if (std::find(begin, begin + length, i) != begin + length) own.insert(j);
  }
  return own;
}

// The reciprocal sets, in the places of the lists, checked; and each row sorted.
std::vector<int32_t> checked_neighbors(const std::vector<int32_t>& lists, int64_t n, int64_t k, int64_t length) {
  auto sets = test::in_every_schedule([&] {
    std::vector<int32_t> out(at(n * length), -1);
    cuda::reciprocal_neighbors({lists.data(), n, k}, length, out.data(), nullptr);
    return out;
  });
  for (int64_t i = 0; i < n; ++i) {
    const std::set<int32_t> want = reciprocal(lists, k, i, length);
    for (int64_t a = 0; a < length; ++a) {
      const int32_t neighbor = lists[at(i * k + a)];
      CHECK_EQUAL(sets[at(i * length + a)], want.count(neighbor) ? neighbor : cuda::kNoItem);
    }
    std::sort(sets.begin() + i * length, sets.begin() + (i + 1) * length);
  }
  return sets;
}

void check_sets(int64_t n, int64_t k, int64_t forward, int64_t half) {
  const std::vector<int32_t> lists = random_lists(n, k, static_cast<uint64_t>(n + half));
  const auto own = checked_neighbors(lists, n, k, forward), theirs = checked_neighbors(lists, n, k, half);
  const auto sizes = test::in_every_schedule([&] {
    std::vector<int32_t> out(at(n * forward), -1);
    cuda::reciprocal_expansions(own.data(), theirs.data(), n, forward, half, out.data(), nullptr);
    return out;
  });
  int64_t joined = 0, refused = 0;
  for (int64_t i = 0; i < n; ++i) {
    const std::set<int32_t> set = reciprocal(lists, k, i, forward);
    for (int64_t a = 0; a < forward; ++a) {
      const int32_t candidate = own[at(i * forward + a)];
      int32_t want = 0;
      if (candidate != cuda::kNoItem) {
        const std::set<int32_t> other = reciprocal(lists, k, candidate, half);
        double common = 0;
        for (const int32_t j : other) common += static_cast<double>(set.count(j));
        const bool joins = common > 2.0 / 3 * static_cast<double>(other.size());
        if (joins) want = static_cast<int32_t>(other.size());
        ++(joins ? joined : refused);
      }
      CHECK_EQUAL(sizes[at(i * forward + a)], want);
    }
  }
  if (n > 30) CHECK(joined > 0 && refused > 0);
}

template <class T>
struct Matrix {
  std::vector<int64_t> starts;
  std::vector<int32_t> columns;
  std::vector<T> weights;
  SparseRows<T> view() const {
    return {static_cast<int64_t>(starts.size()) - 1, starts.data(), columns.data(), weights.data()};
  }
  std::map<int32_t, T> row(int64_t i) const {
    std::map<int32_t, T> entries;
    for (int64_t e = starts[at(i)]; e < starts[at(i + 1)]; ++e) entries[columns[at(e)]] = weights[at(e)];
    return entries;
  }
};

template <class T>
Matrix<T> random_matrix(int64_t rows, int64_t most, uint64_t seed) {
  Random random(seed);
  Matrix<T> matrix{{0}, {}, {}};
  for (int64_t i = 0; i < rows; ++i) {
    std::set<int32_t> columns;
    for (int64_t count = random.below(most + 1); count > 0; --count) {  // also none
      columns.insert(static_cast<int32_t>(random.below(rows)));
    }
    for (const int32_t column : columns) {
      matrix.columns.push_back(column);
      matrix.weights.push_back(static_cast<T>(random.uniform() / static_cast<double>(most)));
    }
    matrix.starts.push_back(static_cast<int64_t>(matrix.columns.size()));
  }
  return matrix;
}

template <class T>
Matrix<T> by_columns(const Matrix<T>& matrix, int64_t first) {
  const int64_t rows = static_cast<int64_t>(matrix.starts.size()) - 1;
  Matrix<T> by{{0}, {}, {}};
  for (int64_t c = 0; c < rows; ++c) {
    for (int64_t i = first; i < rows; ++i) {
      const auto row = matrix.row(i);
      if (const auto found = row.find(static_cast<int32_t>(c)); found != row.end()) {
        by.columns.push_back(static_cast<int32_t>(i - first));
        by.weights.push_back(found->second);
      }
    }
    by.starts.push_back(static_cast<int64_t>(by.columns.size()));
  }
  return by;
}

template <class T>
void check_distances(int64_t rows, int64_t d) {
  const Matrix<T> pairs = random_matrix<T>(rows, 9, 2);
  Random random(3);
  auto x = random.values<T>(rows * d);
  std::copy(x.begin(), x.begin() + d, x.begin() + d);  // the first two are equal
  const auto distances = test::in_every_schedule([&] {
    auto out = test::unwritten<T>(static_cast<int64_t>(pairs.columns.size()));
    cuda::pair_distances<T>(x.data(), d, pairs.view(), out.data(), nullptr);
    return out;
  });
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t e = pairs.starts[at(i)]; e < pairs.starts[at(i + 1)]; ++e) {
      const int64_t j = pairs.columns[at(e)];
      Real want = 0;
      for (int64_t c = 0; c < d; ++c) {
        const Real difference = static_cast<Real>(x[at(i * d + c)]) - static_cast<Real>(x[at(j * d + c)]);
        want += difference * difference;
      }
      // the difference, twice, its square, and d additions of numbers that are not negative
      CHECK_CLOSE(static_cast<double>(distances[at(e)]), static_cast<double>(want),
                  static_cast<double>(want) * test::kRoundoff<T> * static_cast<double>(d + 4));
    }
  }
}

template <class T>
void check_weights(int64_t rows, int64_t most) {
  Matrix<T> distances = random_matrix<T>(rows, most, 3);
  for (T& distance : distances.weights) distance *= T(9000);  // whose exponentials all underflow, but for the shift
  const auto weights = test::in_every_schedule([&] {
    auto out = test::unwritten<T>(static_cast<int64_t>(distances.columns.size()));
    cuda::reciprocal_weights<T>(distances.view(), out.data(), nullptr);
    return out;
  });
  for (int64_t i = 0; i < rows; ++i) {
    Real least = 1e9L, sum = 0;
    for (const auto& [column, distance] : distances.row(i)) least = std::min<Real>(least, distance);
    for (const auto& [column, distance] : distances.row(i)) sum += std::exp(least - static_cast<Real>(distance));
    for (int64_t e = distances.starts[at(i)]; e < distances.starts[at(i + 1)]; ++e) {
      const Real difference = least - static_cast<Real>(distances.weights[at(e)]);
      const Real want = std::exp(difference) / sum;
      // the rounded difference, the exponential, the sum and the quotient
      const Real error = static_cast<Real>(test::kRoundoff<T>) * (std::abs(difference) + 5 + static_cast<Real>(most));
      CHECK_CLOSE(static_cast<double>(weights[at(e)]), static_cast<double>(want),
                  static_cast<double>(want * error + std::numeric_limits<T>::min()));
    }
  }
}

template <class T>
void check_runs(int64_t runs) {
  const Matrix<T> matrix = random_matrix<T>(runs, 9, 4);
  const auto means = test::in_every_schedule([&] {
    auto out = test::unwritten<T>(runs);
    cuda::run_means<T>(matrix.weights.data(), matrix.starts.data(), runs, T(6), out.data(), nullptr);
    return out;
  });
  for (int64_t r = 0; r < runs; ++r) {
    T sum = 0;
    for (int64_t e = matrix.starts[at(r)]; e < matrix.starts[at(r + 1)]; ++e) sum += matrix.weights[at(e)];
    CHECK_EQUAL(means[at(r)], sum / T(6));
  }
}

template <class T>
void check_strip(int64_t num_query, int64_t num_gallery, int64_t blocks, bool products, bool squared, bool clip) {
  const int64_t items = num_query + num_gallery, stride = num_gallery + 3;
  const Matrix<T> matrix = random_matrix<T>(items, 9, 11), by = by_columns(matrix, num_query);
  Random random(1);
  const auto given = random.values<T>(num_query * stride);
  const auto offset = random.values<T>(num_gallery, 0, 1), norms = random.values<T>(num_query, 0, 2);
  auto limits = random.values<T>(num_query, 1, 2), divisors = limits;
  limits[0] = divisors[0] = 0;  // all items are equal
  SparseRows<T> queries = matrix.view();
  queries.rows = num_query;
  const double lambda = 0.3;
  const auto result = test::in_every_schedule([&] {
    auto values = given, overlaps = test::unwritten<T>(blocks * num_gallery);
    cuda::re_rank_strip<T>({values.data(), num_query, num_gallery, stride, products ? offset.data() : nullptr,
                            products ? norms.data() : nullptr, products ? limits.data() : nullptr,
                            products ? divisors.data() : nullptr, squared, queries, by.view(), lambda, clip},
                           overlaps.data(), blocks, nullptr);
    return values;
  });
  for (int64_t q = 0; q < num_query; ++q) {
    for (int64_t g = 0; g < stride; ++g) {
      const size_t place = at(q * stride + g);
      if (g >= num_gallery) {
        CHECK_EQUAL(result[place], given[place]);
        continue;
      }
      Real m = 0, distance = given[place];
      const auto theirs = matrix.row(num_query + g);
      for (const auto& [column, weight] : matrix.row(q)) {
        if (const auto found = theirs.find(column); found != theirs.end()) m += std::min(weight, found->second);
      }
      if (products) {
        const Real limit = limits[at(q)];
        distance = norms[at(q)] + 2 * (offset[at(g)] - distance);
        distance = std::min(std::max<Real>(distance, 0), limit) / (limit > 0 ? limit : 1);
        if (squared) distance *= distance;
      }
      const Real jaccard = 1 - m / (2 - m);
      const Real want = (1 - static_cast<Real>(lambda)) * (clip ? std::max<Real>(jaccard, 0) : jaccard) +
                        static_cast<Real>(lambda) * distance;
      // 9 overlaps, each of which counts twice, 7 roundings of the distance (norm + 2 (offset - p) is up to 7), and 6
      CHECK_CLOSE(static_cast<double>(result[place]), static_cast<double>(want), test::kRoundoff<T> * (18 + 4 * 7 + 6));
    }
  }
}

template <class T>
void check_strips() {
  for (const bool products : {false, true}) {
    check_strip<T>(3, 1, 3, products, false, false);
    check_strip<T>(5, 70, 2, products, products, true);  // more rows than blocks
    check_strip<T>(4, 301, 1, products, false, true);    // more items than threads
  }
}

}  // namespace

TEST(sets) {
  check_sets(1, 1, 1, 1);
  check_sets(5, 3, 3, 2);
  check_sets(90, 21, 21, 11);  // more items than warps of the grid
  check_sets(120, 7, 6, 4);
  check_sets(70, 7, 7, 1);
}
TEST(sets_of_more_items_than_a_warp) {
  check_sets(90, 75, 70, 36);
  check_sets(40, 40, 33, 32);
  check_sets(40, 40, 32, 33);
}
TEST(float_distances) {
  check_distances<float>(90, 37);
  check_distances<float>(9, 1);
}
TEST(double_distances) { check_distances<double>(50, 130); }
TEST(float_weights) {
  check_weights<float>(90, 9);
  check_weights<float>(50, 80);
}
TEST(double_weights) { check_weights<double>(50, 80); }
TEST(float_runs) { check_runs<float>(1500); }
TEST(double_runs) { check_runs<double>(7); }
TEST(float_strips) { check_strips<float>(); }
TEST(double_strips) { check_strips<double>(); }

// A row's distances are infinite apart, or one entry is alone: weights 1.
TEST(weights_of_one) {
  const std::vector<int64_t> starts{0, 1, 1, 2};
  const std::vector<int32_t> columns{0, 2};
  const std::vector<float> distances{0, 1e30f};
  const auto weights = test::in_every_schedule([&] {
    auto out = test::unwritten<float>(2);
    cuda::reciprocal_weights<float>({3, starts.data(), columns.data(), distances.data()}, out.data(), nullptr);
    return out;
  });
  CHECK(weights == std::vector<float>{1, 1});
}

TEST(no_items) {
  cuda::reciprocal_neighbors({nullptr, 0, 1}, 1, nullptr, nullptr);
  cuda::reciprocal_expansions(nullptr, nullptr, 0, 1, 1, nullptr, nullptr);
  cuda::run_means<float>(nullptr, nullptr, 0, 1, nullptr, nullptr);
}
