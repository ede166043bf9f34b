// Tests of the screen_negatives and pair_products kernels, for a backend that has them (problems/pairwise_distance.h).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "csrc/pair_products.h"
#include "csrc/screen_negatives.h"

namespace pyreid::test {

enum class Column { kNone, kOffset, kScale };

struct Tile {
  int64_t rows, columns, row_stride, capacity;
  std::vector<float> products, offset, scale, query_error, gallery_error, reach, below, above;
  std::vector<int64_t> query_ids, gallery_ids, starts;

  // `most` positives a row; values in steps, so that some lie on a threshold.
  Tile(int64_t rows, int64_t columns, int64_t most, int64_t capacity, Column column, double error)
      : rows(rows), columns(columns), row_stride(columns + 2), capacity(capacity) {
    Random random(11);
    const auto number = [&] { return static_cast<float>(random.below(200)) / 32 - 3; };
    for (int64_t e = 0; e < rows * row_stride; ++e) products.push_back(number());
    for (int64_t g = 0; g < columns; ++g) {
      if (column == Column::kOffset) offset.push_back(g % 17 == 5 ? NAN : number());
      if (column == Column::kScale) scale.push_back(std::fabs(number()));
      gallery_ids.push_back(random.below(6));
    }
    for (int64_t e = 0; e < 3 * columns; ++e) gallery_error.push_back(static_cast<float>(error * random.uniform()));
    starts.push_back(0);
    for (int64_t q = 0; q < rows; ++q) {
      query_ids.push_back(random.below(7));
      for (int k = 0; k < 2; ++k) query_error.push_back(static_cast<float>(random.uniform()));
      reach.push_back(static_cast<float>(3 * error) + 1e-6f);
      const int64_t count = q == 0 ? 0 : q == 1 ? most : random.below(most + 1);
      std::vector<float> thresholds;
      for (int64_t p = 0; p < count; ++p) thresholds.push_back(number());
      std::sort(thresholds.begin(), thresholds.end());
      for (size_t p = 0; p < thresholds.size(); ++p) {
        const bool between = p % 3 == 0;  // two neighbors, as a number in float64 has
        above.push_back(between ? std::nextafter(thresholds[p], 100.0f) : thresholds[p]);
        below.push_back(thresholds[p]);
      }
      starts.push_back(starts.back() + count);
    }
  }

  ScreenTask task() const {
    const auto given = [](const auto& list) { return list.empty() ? nullptr : list.data(); };
    return {products.data(),
            rows,
            columns,
            row_stride,
            given(offset),
            given(scale),
            query_error.data(),
            gallery_error.data(),
            reach.data(),
            query_ids.data(),
            gallery_ids.data(),
            below.data(),
            above.data(),
            starts.data(),
            capacity};
  }
};

// Against a walk over all thresholds. `before` holds what earlier tiles have entered.
template <class Backend>
void check_screen(const Tile& tile) {
  const int64_t before = 3;
  const auto [entered, undecided, items] = Backend::repeat([&] {
    std::tuple out{std::vector<int64_t>(tile.starts.back(), before), std::vector<int64_t>(tile.rows, -7),
                   std::vector<int32_t>(tile.rows * tile.capacity, -7)};
    auto& [entered, undecided, items] = out;
    Backend::screen_negatives(tile.task(), entered.data(), items.data(), undecided.data());
    // the order within a list is free where it is complete; where it is not, so is the choice
    for (int64_t q = 0; q < tile.rows; ++q) {
      const auto first = items.begin() + q * tile.capacity;
      if (undecided[q] > tile.capacity) std::fill(first, first + tile.capacity, -9);
      std::sort(first, first + std::min(tile.capacity, undecided[q]));
    }
    return out;
  });
  for (int64_t q = 0; q < tile.rows; ++q) {
    const int64_t start = tile.starts[q], n = tile.starts[q + 1] - start;
    std::vector<int64_t> expected(n, before);
    std::vector<int32_t> open;
    for (int64_t g = 0; n > 0 && g < tile.columns; ++g) {
      const float product = tile.products[q * tile.row_stride + g];
      const float value = !tile.offset.empty()  ? tile.offset[g] - product
                          : !tile.scale.empty() ? -(product * tile.scale[g])
                                                : product;
      if (std::isnan(value) || tile.gallery_ids[g] == tile.query_ids[q]) continue;
      const float error = tile.query_error[2 * q] * tile.gallery_error[g] +
                          tile.query_error[2 * q + 1] * tile.gallery_error[tile.columns + g] +
                          tile.gallery_error[2 * tile.columns + g];
      bool doubtful = false;
      int64_t place = n;
      for (int64_t p = n; p-- > 0;) {
        const bool precedes = value + error<tile.below[start + p], follows = value - error> tile.above[start + p];
        doubtful |= !precedes && !follows;
        if (precedes) place = p;
      }
      if (doubtful) {
        open.push_back(static_cast<int32_t>(g));
      } else if (place < n) {
        ++expected[place];
      }
    }
    for (int64_t p = 0; p < n; ++p) CHECK_EQUAL(entered[start + p], expected[p]);
    CHECK_EQUAL(undecided[q], static_cast<int64_t>(open.size()));
    if (undecided[q] > tile.capacity) continue;
    for (size_t i = 0; i < open.size(); ++i) CHECK_EQUAL(items[q * tile.capacity + i], open[i]);
    for (int64_t i = open.size(); i < tile.capacity; ++i) CHECK_EQUAL(items[q * tile.capacity + i], -7);
  }
}

template <class Backend>
void check_screens() {
  for (const Column column : {Column::kNone, Column::kOffset, Column::kScale}) {
    for (const double error : {0.0, 0.01, 0.5}) {
      check_screen<Backend>(Tile(5, 400, 6, 400, column, error));
      check_screen<Backend>(Tile(3, 300, 1, 2, column, error));
      check_screen<Backend>(Tile(2, 0, 3, 4, column, error));
      check_screen<Backend>(Tile(0, 9, 3, 4, column, error));
    }
  }
  check_screen<Backend>(Tile(9, 90, 5, 9, Column::kOffset, 0.5));       // more rows than the shim has blocks
  check_screen<Backend>(Tile(2, 500, 1300, 0, Column::kOffset, 0.01));  // more thresholds than fit shared memory
}

template <class T, class Backend>
void check_pair_products() {
  Random random(4);
  for (const int64_t d : {1, 7, 32, 75}) {
    const std::vector<T> x = random.values<T>(3 * d), y = random.values<T>(4 * d);
    std::vector<int64_t> rows, items;
    for (int64_t i = 0; i < 41; ++i) {
      rows.push_back(random.below(3));
      items.push_back(random.below(4));
    }
    const PairTask<T> task{x.data(), y.data(), d, rows.data(), items.data(), static_cast<int64_t>(rows.size())};
    const std::vector<double> products = Backend::repeat([&] {
      std::vector<double> out = unwritten<double>(rows.size());
      Backend::pair_products(task, out.data());
      return out;
    });
    for (size_t i = 0; i < rows.size(); ++i) {
      Real sum = 0, size = 0;
      for (int64_t k = 0; k < d; ++k) {
        const Real product = static_cast<Real>(x[rows[i] * d + k]) * static_cast<Real>(y[items[i] * d + k]);
        sum += product;
        size += std::fabs(product);
      }
      CHECK(std::fabs(static_cast<Real>(products[i]) - sum) <= 2 * d * kRoundoff<double> * size);
    }
  }
}

#define PYREID_TEST_SCREEN_NEGATIVES(Backend)                 \
  TEST(screens) { ::pyreid::test::check_screens<Backend>(); } \
  TEST(pair_products) {                                       \
    ::pyreid::test::check_pair_products<float, Backend>();    \
    ::pyreid::test::check_pair_products<double, Backend>();   \
  }

}  // namespace pyreid::test
