#include "csrc/cpu/batch_soft_triplet.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "csrc/cpu/aligned_array.h"
#include "csrc/cpu/simd/batch_soft_triplet.h"
#include "csrc/cpu/triplet.h"

namespace pyreid::cpu {
namespace {

// An exponential and a few masked operations cost about as much as this many multiplications.
constexpr int64_t kCostPerPair = 8;

// Rows of a task of the backward: of the pairs' weights, whole vectors of them, and of the weighted differences.
constexpr int64_t kSumRows = 16;
constexpr int64_t kTaskRows = 128;

}  // namespace

template <class T>
void batch_soft_triplet(T* squared, const int64_t* labels, int64_t b, Margin margin, Reduction reduction, T* losses,
                        T* loss, T* weights, T* slopes, const ParallelFor& parallel_for) {
  const Anchors<T> anchors = find_anchors<T>(labels, b);
  const T scale = reduction_scale(anchors, reduction);
  const int64_t grain = grain_for(kCostPerPair * b);
  parallel_for(0, b, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* row = squared + i * b;
      T* row_weights = weights + i * b;
      losses[i] = slopes[i] = 0;
      if (!anchors.valid[i]) {
        std::fill_n(row_weights, b, T(0));
        continue;
      }
      const auto* identities = anchors.identities.data();
      WeightedMean<T> positive, negative;
      PYREID_SIMD(weighted_means, row, identities, i, b, row_weights, &positive, &negative);
      T slope;
      triplet_loss((positive.shift - negative.shift) + (positive.mean - negative.mean), margin, &losses[i], &slope);
      slopes[i] = slope * scale;
      PYREID_SIMD(mean_gradients, row, identities, i, b, positive, negative, row_weights);
    }
  });
  reduce_losses(losses, anchors, reduction, loss);
}

// Row i of the gradient is the sum over j of (g_i w_ij + g_j w_ji) (x_i - x_j). The differences are formed one by one:
// a product of matrices would lose the digits of near duplicates, whose weights are large.
template <class T>
void batch_soft_triplet_backward(const T* grad, bool per_anchor, const T* x, const T* weights, const T* slopes,
                                 int64_t b, int64_t d, T* dx, const ParallelFor& parallel_for) {
  std::vector<T> anchor_grads(b);
  for (int64_t i = 0; i < b; ++i) anchor_grads[i] = (per_anchor ? grad[i] : grad[0]) * slopes[i];
  const AlignedArray<T> sums(b * b);
  const int64_t groups = (b + kSumRows - 1) / kSumRows;
  parallel_for(0, groups, grain_for(kSumRows * b), [&](int64_t begin, int64_t end) {
    const int64_t last = std::min(end * kSumRows, b);
    PYREID_SIMD(pair_weights, weights, anchor_grads.data(), begin * kSumRows, last, b, sums.data());
  });
  // A task is a strip of the columns of some rows, as many as make up for the time to pack the strip.
  constexpr int64_t kColumns = kStripBytes / static_cast<int64_t>(sizeof(T));
  const int64_t strips = (d + kColumns - 1) / kColumns, parts = (b + kTaskRows - 1) / kTaskRows;
  parallel_for(0, strips * parts, grain_for(kTaskRows * b * kColumns), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t column = task / parts * kColumns, row = task % parts * kTaskRows;
      PYREID_SIMD(weighted_difference_sums, x, sums.data(), row, std::min(row + kTaskRows, b), column,
                  std::min(column + kColumns, d), b, d, dx);
    }
  });
}

#define PYREID_INSTANTIATE(T)                                                                                   \
  template void batch_soft_triplet(T*, const int64_t*, int64_t, Margin, Reduction, T*, T*, T*, T*,              \
                                   const ParallelFor&);                                                         \
  template void batch_soft_triplet_backward(const T*, bool, const T*, const T*, const T*, int64_t, int64_t, T*, \
                                            const ParallelFor&);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cpu
