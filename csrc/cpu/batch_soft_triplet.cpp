#include "csrc/cpu/batch_soft_triplet.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "csrc/cpu/simd/batch_soft_triplet.h"
#include "csrc/cpu/triplet.h"

namespace pyreid::cpu {
namespace {

// An exponential and a few masked operations cost about as much as this many multiplications.
constexpr int64_t kCostPerPair = 8;

}  // namespace

template <class T>
void batch_soft_triplet(T* squared, const int64_t* labels, int64_t b, int64_t, Margin margin, Reduction reduction,
                        T* losses, T* loss, T* weights, T* slopes, const ParallelFor& parallel_for) {
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
  // Whole tiles of 4 rows for each task.
  constexpr int64_t kTaskRows = 4;
  const int64_t tasks = (b + kTaskRows - 1) / kTaskRows;
  const int64_t grain = grain_for(kTaskRows * b * d);
  parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    const int64_t last = std::min(end * kTaskRows, b);
    for (int64_t i0 = begin * kTaskRows; i0 < last; i0 += kGroupRows) {
      const int64_t rows = std::min(kGroupRows, last - i0);
      for (int64_t j0 = 0; j0 < b; j0 += kPanelRows) {
        const int64_t columns = std::min(kPanelRows, b - j0);
        T sums[kGroupRows * kPanelRows];
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < columns; ++j) {
            sums[i * kPanelRows + j] = anchor_grads[i0 + i] * weights[(i0 + i) * b + j0 + j];
          }
        }
        for (int64_t j = 0; j < columns; ++j) {
          const T* other = weights + (j0 + j) * b + i0;
          for (int64_t i = 0; i < rows; ++i) sums[i * kPanelRows + j] += anchor_grads[j0 + j] * other[i];
        }
        PYREID_SIMD(add_weighted_differences, x + i0 * d, rows, x + j0 * d, columns, d, sums, j0 == 0, dx + i0 * d);
      }
    }
  });
}

#define PYREID_INSTANTIATE(T)                                                                                   \
  template void batch_soft_triplet(T*, const int64_t*, int64_t, int64_t, Margin, Reduction, T*, T*, T*, T*,     \
                                   const ParallelFor&);                                                         \
  template void batch_soft_triplet_backward(const T*, bool, const T*, const T*, const T*, int64_t, int64_t, T*, \
                                            const ParallelFor&);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cpu
