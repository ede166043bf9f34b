// Tests of the nearest_neighbors kernels against sorting and loops, for a backend that has them
// (problems/pairwise_distance.h).
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "csrc/nearest_neighbors.h"

namespace pyreid::test {

enum class Ranked { kGiven, kOffset, kScale };

template <class T>
struct Search {
  int64_t rows, columns;
  std::vector<T> products, offset, scale;  // [rows, columns], [columns]

  // `steps` different values only, so that ties abound; 0 for as many as there are.
  Search(int64_t rows, int64_t columns, int64_t steps, Ranked kind) : rows(rows), columns(columns) {
    Random random(11);
    const auto number = [&] {
      return steps ? static_cast<T>(random.below(steps)) - 2 : static_cast<T>(random.uniform() - 0.5);
    };
    for (int64_t e = 0; e < rows * columns; ++e) products.push_back(number());
    for (int64_t g = 0; g < columns; ++g) {
      if (kind == Ranked::kOffset) offset.push_back(number());
      if (kind == Ranked::kScale) scale.push_back(number());
    }
  }

  T value(int64_t q, int64_t g) const {
    const T product = products[q * columns + g];
    return !offset.empty() ? offset[g] - product : !scale.empty() ? -(product * scale[g]) : product;
  }
};

// The gallery comes in tiles of `width` items; between their rows lies memory that is no product.
template <class T, class Backend>
void check_nearest(const Search<T>& search, int64_t k, int64_t width) {
  const int64_t stride = width + 3;
  const std::vector<Neighbor<T>> kept = Backend::repeat([&] {
    std::vector<Neighbor<T>> out(static_cast<size_t>(search.rows * k));
    for (int64_t first = 0; first < search.columns; first += width) {
      const int64_t columns = std::min(width, search.columns - first);
      std::vector<T> products(static_cast<size_t>(search.rows * stride), -std::numeric_limits<T>::infinity());
      for (int64_t q = 0; q < search.rows; ++q) {
        std::copy_n(search.products.begin() + q * search.columns + first, columns, products.begin() + q * stride);
      }
      const auto part = [&](const std::vector<T>& all) {
        return all.empty() ? std::vector<T>() : std::vector<T>(all.begin() + first, all.begin() + first + columns);
      };
      const std::vector<T> offset = part(search.offset), scale = part(search.scale);
      const NearestTile<T> tile{products.data(),
                                search.rows,
                                columns,
                                stride,
                                offset.empty() ? nullptr : offset.data(),
                                scale.empty() ? nullptr : scale.data(),
                                first};
      Backend::keep_nearest(tile, k, out.data());
    }
    for (int64_t q = 0; q < search.rows; ++q) std::sort(out.begin() + q * k, out.begin() + (q + 1) * k);
    return out;
  });
  for (int64_t q = 0; q < search.rows; ++q) {
    std::vector<int64_t> items(static_cast<size_t>(search.columns));
    std::iota(items.begin(), items.end(), int64_t{0});
    std::stable_sort(items.begin(), items.end(), [&](int64_t a, int64_t b) {
      const T x = search.value(q, a), y = search.value(q, b);
      return x < y || (x == x && y != y);
    });
    for (int64_t j = 0; j < k; ++j) {
      CHECK_EQUAL(index_of(kept[q * k + j]), items[j]);
      const T found = value_of(kept[q * k + j]), expected = search.value(q, items[j]);
      CHECK(found == expected || (found != found && expected != expected));
    }
  }
}

template <class T, class Backend>
void check_nearest_of_random_values() {
  for (const Ranked kind : {Ranked::kGiven, Ranked::kOffset, Ranked::kScale}) {
    for (const int64_t steps : {0, 5}) {
      for (const int64_t k : {1, 2, 31, 32, 33}) check_nearest<T, Backend>(Search<T>(7, 300, steps, kind), k, 300);
      check_nearest<T, Backend>(Search<T>(6, 40, steps, kind), 40, 13);
      check_nearest<T, Backend>(Search<T>(1, 1, steps, kind), 1, 1);
    }
  }
}

// Several tiles, narrower than k and wider than what a kernel looks at in one step; k above and below that.
template <class T, class Backend>
void check_nearest_of_several_tiles() {
  for (const int64_t steps : {0, 4}) {
    const Search<T> search(2, 5300, steps, Ranked::kOffset);
    for (const int64_t k : {1, 33, 257, 1000, 1025, 2048}) {
      check_nearest<T, Backend>(search, k, 2500);
      check_nearest<T, Backend>(search, k, 700);
    }
  }
}

// The order in which a kernel meets the values: each new item is nearer, or none is after the first.
template <class T, class Backend>
void check_nearest_of_sorted_values() {
  for (const bool descend : {false, true}) {
    Search<T> search(2, 3100, 0, Ranked::kGiven);
    std::sort(search.products.begin(), search.products.end());
    if (descend) std::reverse(search.products.begin(), search.products.end());
    for (const int64_t k : {1, 100, 1500}) check_nearest<T, Backend>(search, k, 1700);
  }
}

template <class T, class Backend>
void check_nearest_of_extreme_values() {
  constexpr T kInfinity = std::numeric_limits<T>::infinity(), kNaN = std::numeric_limits<T>::quiet_NaN();
  Search<T> search(9, 1300, 4, Ranked::kGiven);
  for (int64_t q = 0; q < search.rows; ++q) {
    for (int64_t g = 0; g < search.columns; ++g) {
      T& value = search.products[q * search.columns + g];
      const int64_t choice = (q * 7 + g * 5) % 11;
      if (choice == 0) value = kNaN;
      if (choice == 1) value = kInfinity;
      if (choice == 2) value = -kInfinity;
      if (choice == 3) value = T(-0.0);
      if (choice == 4) value = T(0);
      if (choice == 5) value = std::numeric_limits<T>::denorm_min();
      if (choice == 6) value = -std::numeric_limits<T>::max();
      if (q == 5) value = -kNaN;
      if (q == 6) value = kInfinity;
      if (q == 7 && g < 1200) value = kNaN;
      if (q == 8) value = g % 2 ? kNaN : kInfinity;
    }
  }
  for (const int64_t k : {1, 50, 150, 700, 1300}) {
    check_nearest<T, Backend>(search, k, 1300);
    check_nearest<T, Backend>(search, k, 500);
  }
}

// Features of which some gallery rows nearly repeat, or repeat, a query row.
template <class T>
struct SearchFeatures {
  int64_t rows, columns, d, k;
  std::vector<T> query, gallery, query_norms, gallery_norms;
  std::vector<std::vector<int64_t>> found;  // k gallery rows of each query

  SearchFeatures(int64_t rows, int64_t columns, int64_t d, int64_t k) : rows(rows), columns(columns), d(d), k(k) {
    Random random(5);
    query = random.values<T>(rows * d);
    gallery = random.values<T>(columns * d);
    for (int64_t g = 0; g < columns; g += 3) {
      for (int64_t c = 0; c < d; ++c) {
        const T noise = static_cast<T>(g % 2 ? 1e-3 * random.uniform() : 0);
        gallery[g * d + c] = query[g % rows * d + c] + noise;
      }
    }
    for (int64_t q = 0; q < rows; ++q) {
      found.emplace_back();
      for (int64_t j = 0; j < k; ++j) found.back().push_back((q * 5 + j * 7) % columns);
    }
    norms();
  }

  void norms() {
    const auto of = [this](const std::vector<T>& features, int64_t count) {
      std::vector<T> out;
      for (int64_t i = 0; i < count; ++i) {
        T sum = 0;
        for (int64_t c = 0; c < d; ++c) sum += features[i * d + c] * features[i * d + c];
        out.push_back(sum);
      }
      return out;
    };
    query_norms = of(query, rows);
    gallery_norms = of(gallery, columns);
  }

  NearestFeatures<T> get() const {
    return {query.data(), gallery.data(), query_norms.data(), gallery_norms.data(), rows, columns, d};
  }

  Real product(int64_t q, int64_t g) const {
    Real sum = 0;
    for (int64_t c = 0; c < d; ++c) sum += Real(query[q * d + c]) * gallery[g * d + c];
    return sum;
  }

  Real distance(int64_t q, int64_t g, Metric metric) const {
    Real squared = 0, x = 0, y = 0;
    for (int64_t c = 0; c < d; ++c) {
      const Real a = query[q * d + c], b = gallery[g * d + c];
      squared += (a - b) * (a - b);
      x += a * a;
      y += b * b;
    }
    if (metric == Metric::kEuclidean) return std::sqrt(squared);
    if (metric == Metric::kSquaredEuclidean) return squared;
    return x > 0 && y > 0 ? 1 - product(q, g) / std::sqrt(x) / std::sqrt(y) : Real(1);
  }

  // What keep_nearest would have left of the rows in `found`.
  std::vector<Neighbor<T>> kept(Metric metric) const {
    std::vector<Neighbor<T>> out;
    for (int64_t q = 0; q < rows; ++q) {
      for (const int64_t g : found[q]) {
        const T exact = static_cast<T>(product(q, g)), norm = gallery_norms[g];
        const T scale = norm > 0 ? 1 / std::sqrt(norm) : T(0);
        const T value = metric == Metric::kCosine ? -(exact * scale) : norm / 2 - exact;
        out.push_back(make_neighbor(value, g));
      }
      std::sort(out.end() - k, out.end());
    }
    return out;
  }
};

template <class T, class Backend>
std::tuple<std::vector<T>, std::vector<int64_t>> kernel_nearest(const SearchFeatures<T>& search, Metric metric) {
  return Backend::repeat([&] {
    std::vector<Neighbor<T>> kept = search.kept(metric);
    std::tuple out{unwritten<T>(search.rows * search.k), std::vector<int64_t>(search.rows * search.k, -7)};
    Backend::nearest_distances(search.get(), search.k, metric, kept.data(), std::get<0>(out).data(),
                               std::get<1>(out).data());
    return out;
  });
}

// A value has an error of about (d + 4) roundoffs of the norms, 2 d here, and a distance that is a 64th of them or
// more keeps it, doubled; below, d + 4 roundoffs of the distance. For cosine the sum is of a difference of rows whose
// ratio has a few roundoffs: an error of 8 roundoffs times the root of the distance. The root halves what is relative,
// and near 0 the worst is what the threshold allows: 4 / sqrt(norms) times the error of the square.
template <class T>
double nearest_tolerance(const SearchFeatures<T>& search, Metric metric) {
  const double d = static_cast<double>(search.d), steps = 4 * (d + 8);
  if (metric == Metric::kCosine) return steps * kRoundoff<T>;
  return metric == Metric::kSquaredEuclidean ? steps * kRoundoff<T> * 2 * d : steps * kRoundoff<T> * 8 * std::sqrt(d);
}

template <class T, class Backend>
void check_distances_of_neighbors() {
  for (const int64_t k : {1, 5, 40}) {
    const SearchFeatures<T> search(6, 61, 37, k);
    for (const Metric metric : {Metric::kEuclidean, Metric::kSquaredEuclidean, Metric::kCosine}) {
      const auto [distances, indices] = kernel_nearest<T, Backend>(search, metric);
      for (int64_t q = 0; q < search.rows; ++q) {
        std::vector<int64_t> found(indices.begin() + q * k, indices.begin() + (q + 1) * k), wanted = search.found[q];
        for (int64_t j = 0; j < k; ++j) {
          const T distance = distances[q * k + j];
          CHECK_CLOSE(distance, search.distance(q, found[j], metric), nearest_tolerance(search, metric));
          if (j > 0) CHECK(distances[q * k + j - 1] <= distance);
          if (found[j] % 6 == 0 && found[j] % search.rows == q) CHECK_EQUAL(distance, T(0));
        }
        std::sort(found.begin(), found.end());
        std::sort(wanted.begin(), wanted.end());
        CHECK(found == wanted);
      }
    }
  }
}

// Far from the origin all pairs cancel: each distance keeps its digits, and equal ones stay in the order of the
// ranking.
template <class T, class Backend>
void check_neighbors_far_from_the_origin() {
  SearchFeatures<T> search(4, 30, 20, 30);
  for (T& x : search.query) x = static_cast<T>(100 + std::ldexp(std::round(x * 64), -6));
  for (int64_t e = 0; e < search.columns * search.d; ++e) {
    search.gallery[e] = search.query[e % (search.rows * search.d)] + static_cast<T>(e / search.d / 8) / 128;
  }
  search.norms();
  for (const Metric metric : {Metric::kEuclidean, Metric::kSquaredEuclidean}) {
    const auto [distances, indices] = kernel_nearest<T, Backend>(search, metric);
    for (int64_t p = 0; p < search.rows * search.k; ++p) {
      const Real expected = search.distance(p / search.k, indices[p], metric);
      CHECK_CLOSE(distances[p], expected, static_cast<double>(search.d + 4) * kRoundoff<T> * expected);
      if (p % search.k > 0) CHECK(distances[p - 1] <= distances[p]);
    }
  }
}

template <class T, class Backend>
void check_neighbors_without_distance() {
  SearchFeatures<T> search(3, 8, 5, 8);
  std::fill_n(search.query.begin(), search.d, T(0));
  std::fill_n(search.gallery.begin() + 2 * search.d, search.d, T(0));
  search.gallery[4 * search.d + 1] = std::numeric_limits<T>::quiet_NaN();
  search.query[2 * search.d] = std::numeric_limits<T>::quiet_NaN();
  search.norms();
  for (const Metric metric : {Metric::kEuclidean, Metric::kSquaredEuclidean, Metric::kCosine}) {
    const auto [distances, indices] = kernel_nearest<T, Backend>(search, metric);
    for (int64_t q = 0; q < 2; ++q) {
      CHECK(std::isnan(distances[q * search.k + 7]));
      CHECK_EQUAL(indices[q * search.k + 7], 4);
      for (int64_t j = 0; j < 7; ++j) {
        const int64_t p = q * search.k + j;
        CHECK_CLOSE(distances[p], search.distance(q, indices[p], metric), nearest_tolerance(search, metric));
      }
    }
    for (int64_t j = 0; j < search.k; ++j) CHECK(std::isnan(distances[2 * search.k + j]));
  }
}

template <class T, class Backend>
void check_gradients_of_neighbors() {
  for (const int64_t d : {1, 37, 300}) {
    SearchFeatures<T> search(5, 23, d, 4);
    if (d > 1) std::fill_n(search.gallery.begin() + 7 * d, d, T(0));  // without a direction
    search.norms();
    const std::vector<T> grad = Random(3).values<T>(search.rows * search.k);
    std::vector<int64_t> indices, order, starts(static_cast<size_t>(search.columns + 1));
    for (const auto& found : search.found) indices.insert(indices.end(), found.begin(), found.end());
    for (int64_t p = 0; p < search.rows * search.k; ++p) order.push_back(p);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return indices[a] < indices[b]; });
    for (const int64_t item : indices) ++starts[item + 1];
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    for (const Metric metric : {Metric::kEuclidean, Metric::kSquaredEuclidean, Metric::kCosine}) {
      std::vector<T> distances;
      for (int64_t p = 0; p < search.rows * search.k; ++p) {
        distances.push_back(static_cast<T>(search.distance(p / search.k, indices[p], metric)));
      }
      const auto [query_grad, gallery_grad] = Backend::repeat([&] {
        std::tuple out{unwritten<T>(search.rows * d), unwritten<T>(search.columns * d)};
        Backend::nearest_gradients(search.get(), search.k, metric, grad.data(), distances.data(), indices.data(),
                                   order.data(), starts.data(), std::get<0>(out).data(), std::get<1>(out).data());
        return out;
      });
      std::vector<Real> expected_query(search.rows * d), expected_gallery(search.columns * d);
      Real largest = 0;  // sum of the terms' sizes
      for (int64_t p = 0; p < search.rows * search.k; ++p) {
        const int64_t q = p / search.k, g = indices[p];
        const Real x = std::sqrt(Real(search.query_norms[q])), y = std::sqrt(Real(search.gallery_norms[g]));
        for (int64_t c = 0; c < d; ++c) {
          const Real a = search.query[q * d + c], b = search.gallery[g * d + c];
          Real da = 0, db = 0;
          if (metric == Metric::kSquaredEuclidean) da = 2 * (a - b), db = -da;
          if (metric == Metric::kEuclidean && distances[p] > 0) da = (a - b) / Real(distances[p]), db = -da;
          if (metric == Metric::kCosine && x > 0 && y > 0) {
            const Real cosine = 1 - Real(distances[p]);
            da = (cosine * a / x - b / y) / x;
            db = (cosine * b / y - a / x) / y;
            largest = std::max(largest, (std::abs(a / x) + std::abs(b / y)) * (1 / x + 1 / y));
          }
          expected_query[q * d + c] += grad[p] * da;
          expected_gallery[g * d + c] += grad[p] * db;
          largest = std::max({largest, std::abs(da), std::abs(db)});
        }
      }
      // At most 5 terms meet in a row, each of a dozen operations.
      const double allowed = 64 * kRoundoff<T> * static_cast<double>(largest);
      CHECK_ALL_CLOSE(query_grad, expected_query, allowed);
      CHECK_ALL_CLOSE(gallery_grad, expected_gallery, allowed);
    }
  }
}

template <class Backend>
void check_nearest_of_nothing() {
  check_nearest<float, Backend>(Search<float>(0, 5, 0, Ranked::kGiven), 2, 5);
  check_nearest<float, Backend>(Search<float>(3, 5, 0, Ranked::kGiven), 0, 5);
  check_nearest<float, Backend>(Search<float>(3, 0, 0, Ranked::kGiven), 0, 5);
}

#define PYREID_TEST_NEAREST_OF(name, check, Backend) \
  TEST(name) {                                       \
    ::pyreid::test::check<float, Backend>();         \
    ::pyreid::test::check<double, Backend>();        \
  }

#define PYREID_TEST_NEAREST_NEIGHBORS(Backend)                                                  \
  PYREID_TEST_NEAREST_OF(random_values, check_nearest_of_random_values, Backend)                \
  PYREID_TEST_NEAREST_OF(several_tiles, check_nearest_of_several_tiles, Backend)                \
  PYREID_TEST_NEAREST_OF(sorted_values, check_nearest_of_sorted_values, Backend)                \
  PYREID_TEST_NEAREST_OF(extreme_values, check_nearest_of_extreme_values, Backend)              \
  PYREID_TEST_NEAREST_OF(distances, check_distances_of_neighbors, Backend)                      \
  PYREID_TEST_NEAREST_OF(far_from_the_origin, check_neighbors_far_from_the_origin, Backend)     \
  PYREID_TEST_NEAREST_OF(neighbors_without_distance, check_neighbors_without_distance, Backend) \
  PYREID_TEST_NEAREST_OF(gradients, check_gradients_of_neighbors, Backend)                      \
  TEST(nothing_to_search) { ::pyreid::test::check_nearest_of_nothing<Backend>(); }

}  // namespace pyreid::test
