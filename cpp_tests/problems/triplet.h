// Tests of the triplet kernels against loops, for a backend that has them (problems/pairwise_distance.h).
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "csrc/triplet.h"

namespace pyreid::test {

template <class T>
struct Batch {
  int64_t b, d;
  std::vector<T> x;  // [b, d]
  std::vector<int64_t> labels;

  T feature(int64_t i, int64_t k) const { return x[i * d + k]; }
  Real distance(int64_t i, int64_t j) const {
    Real squared = 0;
    for (int64_t k = 0; k < d; ++k)
      squared += (Real(feature(i, k)) - feature(j, k)) * (Real(feature(i, k)) - feature(j, k));
    return std::sqrt(squared);
  }
};

// Labels of which the first occurs once, so that its anchor has no positive.
inline std::vector<int64_t> some_labels(int64_t b, int64_t identities) {
  Random random(9);
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < b; ++i) labels.push_back(i == 0 ? -5 : 1000000000000 + random.below(identities));
  return labels;
}

template <class T>
Batch<T> random_batch(int64_t b, int64_t d, int64_t identities) {
  return {b, d, Random(10).values<T>(b * d), some_labels(b, identities)};
}

// Small whole numbers: distances are exact and often equal, and some rows coincide.
template <class T>
Batch<T> batch_with_ties(int64_t b, int64_t d, int64_t identities) {
  Batch<T> batch{b, d, {}, some_labels(b, identities)};
  Random random(11);
  for (int64_t e = 0; e < b * d; ++e) batch.x.push_back(static_cast<T>(random.below(2)));
  return batch;
}

// One anchor's difference of distances, or of weighted means of them, as a sum of weights times distances whose
// derivative is `slope`. `size` bounds what the rounding errors of a weight are relative to.
struct Anchor {
  struct Pair {
    int64_t other;
    Real slope, size;
  };
  bool valid = false;
  Real difference = 0, difference_size = 0;
  std::vector<Pair> pairs;
  int64_t positive = -1, negative = -1;  // of batch-hard
};

template <class T>
Anchor hard_anchor(const Batch<T>& batch, int64_t i) {
  Anchor anchor;
  Real farthest = 0, nearest = 0;
  for (int64_t j = 0; j < batch.b; ++j) {
    if (j == i) continue;
    const Real distance = batch.distance(i, j);
    if (batch.labels[j] == batch.labels[i]) {
      if (anchor.positive < 0 || distance > farthest) {
        anchor.positive = j;
        farthest = distance;
      }
    } else if (anchor.negative < 0 || distance < nearest) {
      anchor.negative = j;
      nearest = distance;
    }
  }
  anchor.valid = anchor.positive >= 0 && anchor.negative >= 0;
  if (anchor.valid) {
    anchor.difference = farthest - nearest;
    anchor.difference_size = farthest + nearest;
    anchor.pairs = {{anchor.positive, 1, 1}, {anchor.negative, -1, 1}};
  } else {
    anchor.positive = anchor.negative = -1;
  }
  return anchor;
}

template <class T>
Anchor soft_anchor(const Batch<T>& batch, int64_t i) {
  Anchor anchor;
  bool has[2] = {false, false};
  for (const int side : {0, 1}) {  // positives, negatives
    const Real sign = side == 0 ? 1 : -1;
    std::vector<int64_t> members;
    std::vector<Real> distances;
    for (int64_t j = 0; j < batch.b; ++j) {
      if (j == i || (batch.labels[j] == batch.labels[i]) != (side == 0)) continue;
      members.push_back(j);
      distances.push_back(batch.distance(i, j));
    }
    has[side] = !members.empty();
    if (members.empty()) continue;
    Real shift = distances[0], largest = 0, total = 0, mean = 0;
    for (const Real distance : distances) {
      shift = sign * std::max(sign * shift, sign * distance);
      largest = std::max(largest, distance);
    }
    for (const Real distance : distances) total += std::exp(sign * (distance - shift));
    for (const Real distance : distances) mean += std::exp(sign * (distance - shift)) / total * distance;
    anchor.difference += sign * mean;
    // An exponential has the absolute error of its argument as its relative one.
    anchor.difference_size += (1 + largest) * (1 + largest);
    for (size_t m = 0; m < members.size(); ++m) {
      const Real weight = std::exp(sign * (distances[m] - shift)) / total;
      anchor.pairs.push_back({members[m], sign * weight * (1 + sign * (distances[m] - mean)),
                              weight * (1 + std::fabs(distances[m] - mean)) * (1 + largest) * (1 + largest)});
    }
  }
  anchor.valid = has[0] && has[1];
  return anchor;
}

template <class T>
struct TripletCase {
  Batch<T> batch;
  Margin margin;
  Reduction reduction;
  std::vector<T> grad;  // of the reduced loss
};

struct TripletReference {
  std::vector<Real> losses, losses_sizes, dx, dx_sizes;
  Real loss = 0, loss_size = 0;
  std::vector<int64_t> pairs;
};

template <class T>
TripletReference triplet_reference(const TripletCase<T>& c, Anchor (*anchor_of)(const Batch<T>&, int64_t)) {
  const Batch<T>& batch = c.batch;
  TripletReference out;
  std::vector<Anchor> anchors;
  int64_t count = 0;
  for (int64_t i = 0; i < batch.b; ++i) {
    anchors.push_back(anchor_of(batch, i));
    count += anchors.back().valid;
  }
  const Real share = c.reduction == Reduction::kMean && count > 0 ? Real(1) / count : Real(1);
  out.dx.assign(batch.x.size(), 0);
  out.dx_sizes.assign(batch.x.size(), 0);
  out.pairs.assign(2 * batch.b, -1);
  for (int64_t i = 0; i < batch.b; ++i) {
    const Anchor& anchor = anchors[i];
    const Real margin = static_cast<T>(c.margin.value);
    const Real hinge = anchor.difference + margin;
    const Real loss = !anchor.valid ? 0
                      : c.margin.soft
                          ? std::log1p(std::exp(-std::fabs(anchor.difference))) + std::max<Real>(anchor.difference, 0)
                          : std::max<Real>(hinge, 0);
    const Real slope = !anchor.valid ? 0 : c.margin.soft ? 1 / (1 + std::exp(-anchor.difference)) : hinge > 0 ? 1 : 0;
    out.losses.push_back(loss);
    out.losses_sizes.push_back(anchor.valid ? anchor.difference_size + 1 : 0);
    out.loss += loss * share;
    out.loss_size += out.losses_sizes.back() * share;
    out.pairs[i] = anchor.positive;
    out.pairs[batch.b + i] = anchor.negative;
    const Real grad = c.reduction == Reduction::kNone ? c.grad[i] : c.grad[0] * share;
    for (const Anchor::Pair& pair : anchor.pairs) {
      const Real distance = batch.distance(i, pair.other);
      if (distance == 0 || !anchor.valid) continue;
      // The soft margin's slope follows the error of the difference.
      const Real size = std::fabs(grad) * pair.size * (c.margin.soft ? 1 + anchor.difference_size : slope) / distance;
      for (int64_t k = 0; k < batch.d; ++k) {
        const Real apart = Real(batch.feature(i, k)) - batch.feature(pair.other, k);
        const Real step = grad * slope * pair.slope * apart / distance;
        out.dx[i * batch.d + k] += step;
        out.dx[pair.other * batch.d + k] -= step;
        out.dx_sizes[i * batch.d + k] += size * std::fabs(apart);
        out.dx_sizes[pair.other * batch.d + k] += size * std::fabs(apart);
      }
    }
  }
  return out;
}

// Distances are sums of d squares in any order; then come an exponential, a sum over the batch and some steps more.
template <class T>
double triplet_tolerance(const Batch<T>& batch) {
  return (static_cast<double>(batch.d) + static_cast<double>(batch.b) / 8 + 64) * kRoundoff<T>;
}

template <class T>
void check_triplet(const TripletCase<T>& c, const TripletReference& expected, const std::vector<T>& losses,
                   const std::vector<T>& loss, const std::vector<T>& dx) {
  const double tolerance = triplet_tolerance(c.batch);
  // An exponential that would be subnormal may count as 0.
  const double least = 100 * static_cast<double>(std::numeric_limits<T>::min());
  for (int64_t i = 0; i < c.batch.b; ++i)
    CHECK_CLOSE(losses[i], expected.losses[i], tolerance * expected.losses_sizes[i]);
  if (c.reduction != Reduction::kNone) CHECK_CLOSE(loss[0], expected.loss, tolerance * expected.loss_size);
  for (size_t e = 0; e < dx.size(); ++e) CHECK_CLOSE(dx[e], expected.dx[e], tolerance * expected.dx_sizes[e] + least);
}

// The kernels in the order of the operator's forward and backward; the reduced loss is one number, or none.
template <class T, class Backend>
auto run_hard(const TripletCase<T>& c) {
  const Batch<T>& batch = c.batch;
  const int64_t b = batch.b;
  return Backend::repeat([&] {
    std::tuple out{unwritten<T>(b), unwritten<T>(1), unwritten<T>(b * batch.d), std::vector<int32_t>(2 * b, -7),
                   unwritten<T>(2 * b)};
    auto& [losses, loss, dx, pairs, slopes] = out;
    const bool none = c.reduction == Reduction::kNone;
    Backend::batch_hard_triplet(batch.x.data(), batch.labels.data(), b, batch.d, c.margin, c.reduction, losses.data(),
                                none ? losses.data() : loss.data(), pairs.data(), slopes.data());
    Backend::batch_hard_triplet_backward(c.grad.data(), none, batch.x.data(), static_cast<const int32_t*>(pairs.data()),
                                         static_cast<const T*>(slopes.data()), b, batch.d, dx.data());
    return out;
  });
}

template <class T, class Backend>
auto run_soft(const TripletCase<T>& c) {
  const Batch<T>& batch = c.batch;
  const int64_t b = batch.b;
  return Backend::repeat([&] {
    std::tuple out{unwritten<T>(b), unwritten<T>(1), unwritten<T>(b * batch.d), unwritten<T>(b * b), unwritten<T>(b)};
    auto& [losses, loss, dx, weights, slopes] = out;
    const bool none = c.reduction == Reduction::kNone;
    Backend::batch_soft_triplet(batch.x.data(), batch.labels.data(), b, batch.d, c.margin, c.reduction, losses.data(),
                                none ? losses.data() : loss.data(), weights.data(), slopes.data());
    Backend::batch_soft_triplet_backward(c.grad.data(), none, batch.x.data(), static_cast<const T*>(weights.data()),
                                         static_cast<const T*>(slopes.data()), b, batch.d, dx.data());
    return out;
  });
}

template <class T, class Backend, bool kHard>
void check_triplet_batch(const Batch<T>& batch, const std::vector<Reduction>& reductions,
                         const std::vector<Margin>& margins = {{false, 0.3}, {true, 0}}) {
  for (const Margin margin : margins) {
    for (const Reduction reduction : reductions) {
      Random random(12);
      const TripletCase<T> c{batch, margin, reduction,
                             random.values<T>(reduction == Reduction::kNone ? batch.b : 1, 0.5, 2)};
      if constexpr (kHard) {
        const auto [losses, loss, dx, pairs, slopes] = run_hard<T, Backend>(c);
        const TripletReference expected = triplet_reference<T>(c, hard_anchor<T>);
        for (int64_t p = 0; p < 2 * batch.b; ++p) CHECK_EQUAL(int64_t{pairs[p]}, expected.pairs[p]);
        check_triplet(c, expected, losses, loss, dx);
      } else {
        const auto [losses, loss, dx, weights, slopes] = run_soft<T, Backend>(c);
        check_triplet(c, triplet_reference<T>(c, soft_anchor<T>), losses, loss, dx);
      }
    }
  }
}

template <class T, class Backend, bool kHard>
void check_triplet_batches() {
  const std::vector<Reduction> all = {Reduction::kMean, Reduction::kSum, Reduction::kNone};
  check_triplet_batch<T, Backend, kHard>(random_batch<T>(9, 7, 3), all);
  check_triplet_batch<T, Backend, kHard>(random_batch<T>(37, 100, 9), {Reduction::kMean});
  check_triplet_batch<T, Backend, kHard>(random_batch<T>(5, 1030, 2), {Reduction::kNone});  // many splits
  check_triplet_batch<T, Backend, kHard>(batch_with_ties<T>(40, 4, 5), {Reduction::kMean, Reduction::kNone});
}

// More anchors than a block has threads.
template <class Backend, bool kHard>
void check_large_triplet_batch() {
  check_triplet_batch<float, Backend, kHard>(batch_with_ties<float>(261, 5, 60), {Reduction::kMean}, {{true, 0}});
}

template <class Backend, bool kHard>
void check_triplets_without_pairs() {
  const std::vector<Reduction> all = {Reduction::kMean, Reduction::kSum, Reduction::kNone};
  Batch<float> batch = random_batch<float>(6, 5, 2);
  batch.labels.assign(6, 3);  // no negative
  check_triplet_batch<float, Backend, kHard>(batch, all);
  for (int64_t i = 0; i < 6; ++i) batch.labels[i] = i;  // no positive
  check_triplet_batch<float, Backend, kHard>(batch, all);
  check_triplet_batch<float, Backend, kHard>(random_batch<float>(1, 5, 1), all);
  check_triplet_batch<float, Backend, kHard>(random_batch<float>(0, 5, 1), all);
  check_triplet_batch<float, Backend, kHard>(random_batch<float>(7, 0, 2), all);
  Batch<float> equal = random_batch<float>(8, 33, 2);  // every distance is 0
  for (int64_t e = 0; e < 8 * 33; ++e) equal.x[e] = equal.x[e % 33];
  check_triplet_batch<float, Backend, kHard>(equal, all);
}

// A NaN in one row reaches every loss that looks at the row, which is all of them.
template <class Backend, bool kHard>
void check_triplets_of_nan() {
  TripletCase<float> c{random_batch<float>(20, 6, 2), {false, 0.3}, Reduction::kMean, {1}};
  c.batch.x[5 * 6 + 2] = std::numeric_limits<float>::quiet_NaN();
  if constexpr (kHard) {
    CHECK(std::isnan(std::get<1>(run_hard<float, Backend>(c))[0]));
  } else {
    CHECK(std::isnan(std::get<1>(run_soft<float, Backend>(c))[0]));
  }
}

// Distances so large that exp(-distance) is 0: a softmax that is not relative to the nearest negative would fail.
template <class Backend>
void check_distant_triplets() {
  Batch<double> batch = random_batch<double>(12, 9, 3);
  for (double& feature : batch.x) feature *= 1000;
  check_triplet_batch<double, Backend, false>(batch, {Reduction::kSum});
}

#define PYREID_TEST_TRIPLET(Backend, kHard)                                                       \
  TEST(batches) {                                                                                 \
    ::pyreid::test::check_triplet_batches<float, Backend, kHard>();                               \
    ::pyreid::test::check_triplet_batches<double, Backend, kHard>();                              \
  }                                                                                               \
  TEST(large_batch) { ::pyreid::test::check_large_triplet_batch<Backend, kHard>(); }              \
  TEST(anchors_without_pairs) { ::pyreid::test::check_triplets_without_pairs<Backend, kHard>(); } \
  TEST(nan_is_not_lost) { ::pyreid::test::check_triplets_of_nan<Backend, kHard>(); }

}  // namespace pyreid::test
