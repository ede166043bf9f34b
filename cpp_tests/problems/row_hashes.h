// Tests of the row_hashes kernel, for a backend that has it (problems/pairwise_distance.h).
#pragma once
#include <cstdint>
#include <set>
#include <vector>

#include "cpp_tests/check.h"

namespace pyreid::test {

// Rows that differ in one element have different hashes, equal rows have equal ones.
template <class Backend, class Word>
void check_row_hashes(int64_t d) {
  std::vector<Word> x;  // row 0, row 0 again, and row 0 with element k changed, for every k
  const int64_t n = d + 2;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < d; ++k) x.push_back(static_cast<Word>(k * 77 + (i - 2 == k ? 1 : 0)));
  }
  const std::vector<int64_t> hashes = Backend::repeat([&] {
    std::vector<int64_t> out(n, -1);
    Backend::row_hashes(x.data(), n, d, out.data());
    return out;
  });
  CHECK_EQUAL(hashes[0], hashes[1]);
  const std::set<int64_t> different(hashes.begin() + 1, hashes.end());
  CHECK_EQUAL(static_cast<int64_t>(different.size()), n - 1);
}

// Where an element stands matters, not only which elements there are.
template <class Backend>
void check_order_matters() {
  const std::vector<uint32_t> x{1, 2, 3, 4, 5, 6, 5, 2, 3, 4, 1, 6, 2, 1, 3, 4, 5, 6};
  const std::vector<int64_t> hashes = Backend::repeat([&] {
    std::vector<int64_t> out(3);
    Backend::row_hashes(x.data(), 3, 6, out.data());
    return out;
  });
  CHECK_EQUAL(static_cast<int64_t>(std::set<int64_t>(hashes.begin(), hashes.end()).size()), int64_t{3});
}

}  // namespace pyreid::test

#define PYREID_TEST_ROW_HASHES(Backend)                                 \
  TEST(rows_that_differ_in_one_element) {                               \
    for (const int64_t d : {1, 3, 4, 7, 33, 70}) {                      \
      pyreid::test::check_row_hashes<Backend, uint16_t>(d);             \
      pyreid::test::check_row_hashes<Backend, uint32_t>(d);             \
      pyreid::test::check_row_hashes<Backend, uint64_t>(d);             \
    }                                                                   \
  }                                                                     \
  TEST(order_matters) { pyreid::test::check_order_matters<Backend>(); } \
  TEST(no_rows) { Backend::row_hashes(static_cast<const uint32_t*>(nullptr), 0, 3, nullptr); }
