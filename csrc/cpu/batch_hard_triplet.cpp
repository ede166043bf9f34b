#include "csrc/cpu/batch_hard_triplet.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "csrc/cpu/simd/batch_hard_triplet.h"
#include "csrc/cpu/triplet.h"

namespace pyreid::cpu {
namespace {

// The gradient is a sum of w (x_i - x_j) over pairs (i, j), each of which also gives -w (x_i - x_j) to row j. Gathered
// by row in the order of the anchors, so that rows can be summed independently and always in the same order.
template <class T>
struct Contributions {
  std::vector<int64_t> begin;   // [B + 1], where the contributions to a row begin
  std::vector<int32_t> others;  // the other row of the pair
  std::vector<T> weights;
};

// Calls visit(anchor, other, weight) for the pairs of all anchors that have a gradient.
template <class T, class Visit>
void visit_pairs(const T* grad, bool per_anchor, const int32_t* pairs, const T* slopes, int64_t b, Visit visit) {
  for (int64_t i = 0; i < b; ++i) {
    if (pairs[i] < 0) continue;
    const T g = per_anchor ? grad[i] : grad[0];
    const T positive = g * slopes[i], negative = -g * slopes[b + i];
    if (positive != 0) visit(i, pairs[i], positive);
    if (negative != 0) visit(i, pairs[b + i], negative);
  }
}

template <class T>
Contributions<T> gather(const T* grad, bool per_anchor, const int32_t* pairs, const T* slopes, int64_t b) {
  Contributions<T> out;
  out.begin.assign(b + 1, 0);
  visit_pairs(grad, per_anchor, pairs, slopes, b, [&](int64_t i, int64_t j, T) {
    ++out.begin[i + 1];
    ++out.begin[j + 1];
  });
  for (int64_t i = 0; i < b; ++i) out.begin[i + 1] += out.begin[i];
  out.others.resize(out.begin[b]);
  out.weights.resize(out.begin[b]);
  std::vector<int64_t> next(out.begin.begin(), out.begin.end() - 1);
  visit_pairs(grad, per_anchor, pairs, slopes, b, [&](int64_t i, int64_t j, T weight) {
    out.others[next[i]] = static_cast<int32_t>(j);
    out.weights[next[i]++] = weight;
    out.others[next[j]] = static_cast<int32_t>(i);
    out.weights[next[j]++] = weight;
  });
  return out;
}

// The derivative of a distance by its rows is their difference over the distance, and taken as 0 at distance 0.
template <class T>
T over_distance(T slope, T distance) {
  return distance == 0 ? T(0) : slope / distance;
}

}  // namespace

template <class T>
void batch_hard_triplet(const T* squared, const int64_t* labels, int64_t b, Margin margin, Reduction reduction,
                        T* losses, T* loss, int32_t* pairs, T* slopes, const ParallelFor& parallel_for) {
  const Anchors<T> anchors = find_anchors<T>(labels, b);
  const T scale = reduction_scale(anchors, reduction);
  parallel_for(0, b, grain_for(b), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      losses[i] = slopes[i] = slopes[b + i] = 0;
      pairs[i] = pairs[b + i] = -1;
      if (!anchors.valid[i]) continue;
      PYREID_SIMD(hardest_pair, squared + i * b, anchors.identities.data(), i, b, &pairs[i], &pairs[b + i]);
      const T positive = std::sqrt(squared[i * b + pairs[i]]), negative = std::sqrt(squared[i * b + pairs[b + i]]);
      T slope;
      triplet_loss(positive - negative, margin, &losses[i], &slope);
      slopes[i] = over_distance(slope * scale, positive);
      slopes[b + i] = over_distance(slope * scale, negative);
    }
  });
  reduce_losses(losses, anchors, reduction, loss);
}

template <class T>
void batch_hard_triplet_backward(const T* grad, bool per_anchor, const T* x, const int32_t* pairs, const T* slopes,
                                 int64_t b, int64_t d, T* dx, const ParallelFor& parallel_for) {
  const Contributions<T> contributions = gather(grad, per_anchor, pairs, slopes, b);
  // A row has about four contributions.
  parallel_for(0, b, grain_for(4 * d), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = contributions.begin[i];
      PYREID_SIMD(weighted_differences, x, d, i, contributions.others.data() + first,
                  contributions.weights.data() + first, contributions.begin[i + 1] - first, dx + i * d);
    }
  });
}

#define PYREID_INSTANTIATE(T)                                                                                         \
  template void batch_hard_triplet(const T*, const int64_t*, int64_t, Margin, Reduction, T*, T*, int32_t*, T*,        \
                                   const ParallelFor&);                                                               \
  template void batch_hard_triplet_backward(const T*, bool, const T*, const int32_t*, const T*, int64_t, int64_t, T*, \
                                            const ParallelFor&);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cpu
