// Tests of the rank_positives kernel against sorting, for a backend that has it (problems/pairwise_distance.h).
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "csrc/rank_positives.h"

namespace pyreid::test {

enum class Values { kDistance, kOffset, kScale };

template <class T>
struct Gallery {
  int64_t rows, columns, row_stride;
  std::vector<T> values, offset, scale;
  std::vector<int64_t> ids, query_ids, cams, query_cams;
  std::vector<int64_t> order, begin, starts;

  // `steps` different values only, so that ties abound; 0 for as many as there are.
  Gallery(int64_t rows, int64_t columns, int64_t identities, int64_t steps, bool cameras, Values kind)
      : rows(rows), columns(columns), row_stride(columns + 3) {
    Random random(8);
    const auto number = [&] {
      return steps ? static_cast<T>(random.below(steps)) - 2 : static_cast<T>(random.uniform());
    };
    for (int64_t e = 0; e < rows * row_stride; ++e) {
      values.push_back(e % row_stride < columns ? number() : std::numeric_limits<T>::quiet_NaN());
    }
    for (int64_t g = 0; g < columns; ++g) {
      if (kind == Values::kOffset) offset.push_back(number());
      if (kind == Values::kScale) scale.push_back(number());
      ids.push_back(random.below(identities));
      if (cameras) cams.push_back(random.below(3));
    }
    for (int64_t q = 0; q < rows; ++q) {
      query_ids.push_back(random.below(identities + 1));  // the last one is not in the gallery
      if (cameras) query_cams.push_back(random.below(3));
    }
    for (int64_t g = 0; g < columns; ++g) order.push_back(g);
    std::stable_sort(order.begin(), order.end(), [this](int64_t a, int64_t b) { return ids[a] < ids[b]; });
    starts.push_back(0);
    for (int64_t q = 0; q < rows; ++q) {
      const auto before = [this](int64_t g, int64_t id) { return ids[g] < id; };
      const auto first = std::lower_bound(order.begin(), order.end(), query_ids[q], before);
      const auto last = std::lower_bound(order.begin(), order.end(), query_ids[q] + 1, before);
      begin.push_back(first - order.begin());
      starts.push_back(starts.back() + (last - first));
    }
  }

  T value(int64_t q, int64_t g) const {
    const T v = values[q * row_stride + g];
    return !offset.empty() ? offset[g] - v : !scale.empty() ? -(v * scale[g]) : v;
  }

  RankTask<T> task() const {
    const auto given = [](const auto& list) { return list.empty() ? nullptr : list.data(); };
    return {values.data(), rows,         columns,       row_stride,        given(offset), given(scale),
            order.data(),  begin.data(), starts.data(), given(query_cams), given(cams)};
  }
};

template <class T, class Backend>
void check_ranks(const Gallery<T>& gallery) {
  const auto [ranks, nans] = Backend::repeat([&] {
    std::tuple out{std::vector<int64_t>(gallery.starts.back(), -7), std::vector<int64_t>(gallery.rows, -7)};
    Backend::rank_positives(gallery.task(), std::get<0>(out).data(), std::get<1>(out).data());
    return out;
  });
  for (int64_t q = 0; q < gallery.rows; ++q) {
    const auto is_junk = [&](int64_t g) {
      return !gallery.cams.empty() && gallery.ids[g] == gallery.query_ids[q] &&
             gallery.cams[g] == gallery.query_cams[q];
    };
    std::vector<int64_t> items;
    int64_t num_nans = 0;
    for (int64_t g = 0; g < gallery.columns; ++g) {
      num_nans += std::isnan(gallery.value(q, g));
      if (!std::isnan(gallery.value(q, g)) && !is_junk(g)) items.push_back(g);
    }
    std::stable_sort(items.begin(), items.end(),
                     [&](int64_t a, int64_t b) { return gallery.value(q, a) < gallery.value(q, b); });
    int64_t slot = gallery.starts[q];
    for (size_t rank = 0; rank < items.size(); ++rank) {
      if (gallery.ids[items[rank]] == gallery.query_ids[q]) CHECK_EQUAL(ranks[slot++], static_cast<int64_t>(rank));
    }
    while (slot < gallery.starts[q + 1]) CHECK_EQUAL(ranks[slot++], -1);
    CHECK_EQUAL(nans[q], num_nans);
  }
}

template <class T, class Backend>
void check_ranks_of_random_galleries() {
  for (const Values kind : {Values::kDistance, Values::kOffset, Values::kScale}) {
    for (const bool cameras : {false, true}) {
      check_ranks<T, Backend>(Gallery<T>(1, 1, 1, 0, cameras, kind));
      check_ranks<T, Backend>(Gallery<T>(7, 40, 4, 0, cameras, kind));
      check_ranks<T, Backend>(Gallery<T>(9, 301, 20, 6, cameras, kind));
      check_ranks<T, Backend>(Gallery<T>(3, 700, 2, 3, cameras, kind));
    }
  }
}

// More positives than a kernel holds at a time.
template <class T, class Backend>
void check_ranks_of_many_positives() {
  check_ranks<T, Backend>(Gallery<T>(2, 3500, 1, 500, false, Values::kDistance));
  check_ranks<T, Backend>(Gallery<T>(2, 3500, 2, 0, true, Values::kOffset));
}

template <class T, class Backend>
void check_ranks_of_extreme_values() {
  constexpr T kInfinity = std::numeric_limits<T>::infinity(), kNaN = std::numeric_limits<T>::quiet_NaN();
  for (const bool cameras : {false, true}) {
    Gallery<T> gallery(8, 200, 5, 4, cameras, Values::kDistance);
    for (int64_t q = 0; q < gallery.rows; ++q) {
      for (int64_t g = 0; g < gallery.columns; ++g) {
        T& value = gallery.values[q * gallery.row_stride + g];
        const int64_t choice = (q * 7 + g * 5) % 11;
        if (choice == 0) value = kNaN;
        if (choice == 1) value = kInfinity;
        if (choice == 2) value = -kInfinity;
        if (choice == 3) value = T(-0.0);
        if (choice == 4) value = T(0);
        if (q == 6) value = kNaN;
        if (q == 7) value = kInfinity;
      }
    }
    check_ranks<T, Backend>(gallery);
  }
}

template <class Backend>
void check_ranks_of_nothing() {
  check_ranks<float, Backend>(Gallery<float>(0, 5, 2, 0, true, Values::kDistance));
  check_ranks<float, Backend>(Gallery<float>(3, 0, 2, 0, false, Values::kDistance));
  // queries whose identity is not in the gallery
  Gallery<float> strangers(4, 30, 1, 0, false, Values::kDistance);
  for (int64_t q = 0; q < 4; ++q) {
    strangers.query_ids[q] = 1;
    strangers.begin[q] = 30;
    strangers.starts[q + 1] = 0;
  }
  check_ranks<float, Backend>(strangers);
}

#define PYREID_TEST_RANK_POSITIVES(Backend)                             \
  TEST(random_galleries) {                                              \
    ::pyreid::test::check_ranks_of_random_galleries<float, Backend>();  \
    ::pyreid::test::check_ranks_of_random_galleries<double, Backend>(); \
  }                                                                     \
  TEST(many_positives) {                                                \
    ::pyreid::test::check_ranks_of_many_positives<float, Backend>();    \
    ::pyreid::test::check_ranks_of_many_positives<double, Backend>();   \
  }                                                                     \
  TEST(extreme_values) {                                                \
    ::pyreid::test::check_ranks_of_extreme_values<float, Backend>();    \
    ::pyreid::test::check_ranks_of_extreme_values<double, Backend>();   \
  }                                                                     \
  TEST(nothing_to_rank) { ::pyreid::test::check_ranks_of_nothing<Backend>(); }

}  // namespace pyreid::test
