#include "csrc/cpu/set_neighbors.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "cpp_tests/cpu/splits.h"

namespace {

using namespace pyreid;
using test::Random;

template <class T>
using Result = std::tuple<std::vector<T>, std::vector<int32_t>, std::vector<T>, std::vector<cpu::FarthestIndex<T>>>;

// The lists of n items with small integer values, so that many tie: from one strip of the first `height` items, read
// both ways, and strips of the others.
template <class T>
Result<T> lists_of(const std::vector<T>& products, const std::vector<T>& offset, int64_t n, int64_t k, int64_t height,
                   const cpu::ParallelFor& parallel_for) {
  std::vector<T> values(static_cast<size_t>(n * k), std::numeric_limits<T>::infinity());
  std::vector<int32_t> indices(static_cast<size_t>(n * k));
  std::vector<T> farthest_value(static_cast<size_t>(n), -std::numeric_limits<T>::infinity());
  std::vector<cpu::FarthestIndex<T>> farthest(static_cast<size_t>(n));
  const auto from = [&](int64_t item, int64_t count) {
    return cpu::NeighborLists<T>{count,
                                 k,
                                 values.data() + item * k,
                                 indices.data() + item * k,
                                 farthest_value.data() + item,
                                 farthest.data() + item};
  };
  for (int64_t row = 0; row < n; row += height) {
    const int64_t rows = std::min(height, n - row), later = n - row - rows;
    const T* strip = products.data() + row * n + row;
    cpu::keep_row_neighbors<T>({strip, rows, n - row, n, offset.data() + row, row}, from(row, rows), parallel_for);
    if (later == 0) continue;
    cpu::keep_column_neighbors<T>({strip + rows, rows, later, n, offset.data() + row, row}, from(row + rows, later),
                                  parallel_for);
  }
  return {values, indices, farthest_value, farthest};
}

template <class T>
void check_lists(int64_t n, int64_t k, int64_t height, int64_t levels) {
  Random random(static_cast<uint64_t>(n + k + height));
  std::vector<T> products(static_cast<size_t>(n * n)), offset(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    offset[static_cast<size_t>(i)] = static_cast<T>(random.below(levels)) / 2;
    for (int64_t j = 0; j <= i; ++j) {
      products[static_cast<size_t>(i * n + j)] = products[static_cast<size_t>(j * n + i)] =
          static_cast<T>(random.below(2 * levels) - levels);
    }
  }
  const auto [values, indices, farthest_value, farthest] = test::in_every_split(
      [&](const cpu::ParallelFor& split) { return lists_of(products, offset, n, k, height, split); });
  for (int64_t i = 0; i < n; ++i) {
    const auto value = [&](int64_t j) {
      return offset[static_cast<size_t>(j)] - products[static_cast<size_t>(i * n + j)];
    };
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return value(a) < value(b); });
    for (int64_t p = 0; p < k; ++p) {
      CHECK_EQUAL(int64_t{indices[static_cast<size_t>(i * k + p)]}, order[static_cast<size_t>(p)]);
      CHECK_EQUAL(values[static_cast<size_t>(i * k + p)], value(order[static_cast<size_t>(p)]));
    }
    CHECK_EQUAL(farthest_value[static_cast<size_t>(i)], value(order.back()));
    CHECK_EQUAL(value(static_cast<int64_t>(farthest[static_cast<size_t>(i)])), value(order.back()));
  }
}

template <class T>
void check_all() {
  for (const int64_t levels : {2, 1000}) {
    check_lists<T>(1, 1, 1, levels);
    check_lists<T>(7, 7, 2, levels);
    check_lists<T>(67, 5, 67, levels);
    check_lists<T>(150, 21, 64, levels);
    check_lists<T>(1300, 3, 100, levels);
  }
}

}  // namespace

TEST(float_lists) { check_all<float>(); }
TEST(double_lists) { check_all<double>(); }

TEST(given_values_need_no_offset) {
  const std::vector<float> given{3, 1, 2, 1, 0, 9};
  std::vector<float> values(4, std::numeric_limits<float>::infinity()), most(2, -1);
  std::vector<int32_t> indices(4), farthest(2);
  cpu::keep_row_neighbors<float>({given.data(), 2, 3, 3, nullptr, 10},
                                 {2, 2, values.data(), indices.data(), most.data(), farthest.data()}, test::whole);
  CHECK(values == std::vector<float>{1, 2, 0, 1});
  CHECK(indices == std::vector<int32_t>{11, 12, 11, 10});
  CHECK(farthest == std::vector<int32_t>{10, 12});
}
