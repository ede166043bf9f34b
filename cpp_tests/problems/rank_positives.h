// Tests of the rank_positives kernel against a stable sort, for a backend that has it (problems/pairwise_distance.h).
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "csrc/rank_positives.h"

namespace pyreid::test {

enum class RankSource { kGiven, kOffset, kScale };

// A strip with its labels; values lie on a few levels, so that many tie, with a gap between the rows.
template <class T>
struct RankProblem {
  int64_t rows, columns, row_stride;
  std::vector<T> values, column;
  std::vector<int64_t> query_ids, gallery_ids, query_cams, gallery_cams, order, begin, starts;
  RankSource source;

  RankProblem(int64_t rows, int64_t columns, int64_t num_ids, int64_t num_cams, int64_t levels, RankSource source)
      : rows(rows), columns(columns), row_stride(columns + 3), source(source) {
    Random random(7);
    const auto labels = [&](int64_t count, int64_t bound) {
      std::vector<int64_t> all;
      for (int64_t i = 0; i < count; ++i) all.push_back(random.below(bound));
      return all;
    };
    for (int64_t i = 0; i < rows * row_stride; ++i) values.push_back(static_cast<T>(random.below(levels)));
    for (int64_t j = 0; j < columns; ++j) column.push_back(j % 11 == 5 ? T(NAN) : static_cast<T>(random.below(4)));
    query_ids = labels(rows, num_ids);
    gallery_ids = labels(columns, num_ids);
    if (num_cams > 0) {
      query_cams = labels(rows, num_cams);
      gallery_cams = labels(columns, num_cams);
    }
    order.resize(static_cast<size_t>(columns));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return gallery_ids[a] < gallery_ids[b]; });
    starts.push_back(0);
    for (const int64_t id : query_ids) {
      const auto smaller = [id](int64_t other) { return other < id; };
      begin.push_back(std::count_if(gallery_ids.begin(), gallery_ids.end(), smaller));
      starts.push_back(starts.back() + std::count(gallery_ids.begin(), gallery_ids.end(), id));
    }
  }

  T value(int64_t q, int64_t g) const {
    const T v = values[q * row_stride + g];
    return source == RankSource::kGiven ? v : source == RankSource::kOffset ? column[g] - v : -(v * column[g]);
  }

  RankTask<T> task() const {
    return {values.data(),
            rows,
            columns,
            row_stride,
            source == RankSource::kOffset ? column.data() : nullptr,
            source == RankSource::kScale ? column.data() : nullptr,
            order.data(),
            begin.data(),
            starts.data(),
            query_cams.empty() ? nullptr : query_cams.data(),
            query_cams.empty() ? nullptr : gallery_cams.data()};
  }

  std::tuple<std::vector<int64_t>, std::vector<int64_t>> expected() const {
    std::vector<int64_t> ranks, nans;
    for (int64_t q = 0; q < rows; ++q) {
      std::vector<int64_t> kept;
      nans.push_back(0);
      for (int64_t g = 0; g < columns; ++g) {
        const bool is_nan = std::isnan(value(q, g));
        nans.back() += is_nan;
        const bool same_id = gallery_ids[g] == query_ids[q];
        const bool junk = same_id && !query_cams.empty() && gallery_cams[g] == query_cams[q];
        if (!is_nan && !junk) kept.push_back(g);
      }
      std::stable_sort(kept.begin(), kept.end(), [&](int64_t a, int64_t b) { return value(q, a) < value(q, b); });
      for (size_t rank = 0; rank < kept.size(); ++rank) {
        if (gallery_ids[kept[rank]] == query_ids[q]) ranks.push_back(static_cast<int64_t>(rank));
      }
      ranks.resize(static_cast<size_t>(starts[q + 1]), -1);
    }
    return {ranks, nans};
  }
};

template <class Backend, class T>
void check_ranks(const RankProblem<T>& problem) {
  const RankTask<T> task = problem.task();
  const auto [ranks, nans] = Backend::repeat([&] {
    std::tuple out{std::vector<int64_t>(static_cast<size_t>(problem.starts.back()), -7),
                   std::vector<int64_t>(static_cast<size_t>(problem.rows), -7)};
    Backend::rank_positives(task, std::get<0>(out).data(), std::get<1>(out).data());
    return out;
  });
  const auto [expected_ranks, expected_nans] = problem.expected();
  CHECK_ALL_CLOSE(ranks, expected_ranks, 0);
  CHECK_ALL_CLOSE(nans, expected_nans, 0);
}

template <class Backend, class T>
void check_rank_problems() {
  for (const RankSource source : {RankSource::kGiven, RankSource::kOffset, RankSource::kScale}) {
    for (const int64_t levels : {1, 6, 1 << 20}) {
      check_ranks<Backend>(RankProblem<T>(2, 1, 1, 0, levels, source));
      check_ranks<Backend>(RankProblem<T>(5, 37, 4, 3, levels, source));
      check_ranks<Backend>(RankProblem<T>(3, 2100, 90, 4, levels, source));  // more than a block of columns
    }
  }
}

template <class Backend>
void check_many_positives() {
  for (const int64_t levels : {1, 50, 1 << 20}) {
    check_ranks<Backend>(RankProblem<float>(1, 2600, 2, 8, levels, RankSource::kOffset));
  }
  check_ranks<Backend>(RankProblem<float>(1, 2048, 1, 0, 9, RankSource::kGiven));  // two whole chunks of 1024
}

template <class Backend>
void check_infinities() {
  RankProblem<float> problem(3, 400, 3, 2, 3, RankSource::kGiven);
  const float infinity = std::numeric_limits<float>::infinity();
  for (float& v : problem.values) v = v == 0 ? -infinity : v == 1 ? infinity : v;
  check_ranks<Backend>(problem);
}

template <class Backend>
void check_ranks_of_nothing() {
  check_ranks<Backend>(RankProblem<float>(0, 5, 1, 0, 3, RankSource::kGiven));
  check_ranks<Backend>(RankProblem<float>(3, 0, 1, 2, 3, RankSource::kGiven));
}

#define PYREID_TEST_RANK_POSITIVES(Backend)                                            \
  TEST(ranks_in_float) { ::pyreid::test::check_rank_problems<Backend, float>(); }      \
  TEST(ranks_in_double) { ::pyreid::test::check_rank_problems<Backend, double>(); }    \
  TEST(ranks_of_many_positives) { ::pyreid::test::check_many_positives<Backend>(); }   \
  TEST(ranks_with_infinite_distances) { ::pyreid::test::check_infinities<Backend>(); } \
  TEST(ranks_of_nothing) { ::pyreid::test::check_ranks_of_nothing<Backend>(); }

}  // namespace pyreid::test
