#pragma once
#include <cstdint>

#include "csrc/cpu/isa.h"

namespace pyreid::cpu {

// The two softmax-weighted means of one anchor: softmax(d) over positives, softmax(-d) over negatives. Distances are
// taken relative to the largest (smallest) one, `shift`, so that no exponential overflows and not all underflow.
template <class T>
struct WeightedMean {
  T shift;
  T total;  // of exp(+-(d - shift))
  T mean;   // of d - shift
};

// Rows of features that one call of add_weighted_differences combines.
inline constexpr int64_t kGroupRows = 32;
inline constexpr int64_t kPanelRows = 128;

}  // namespace pyreid::cpu

#define PYREID_SOFT_TRIPLET_DECLARATIONS(T, Int)                                                                       \
  /* Replaces anchor i's row of squared distances by distances, writes exp(+-(d - shift)) and the means. Anchor i */   \
  /* has a positive and a negative.                                                                                */  \
  void weighted_means(T* row, const Int* identities, int64_t i, int64_t b, T* exponentials, WeightedMean<T>* positive, \
                      WeightedMean<T>* negative);                                                                      \
  /* Replaces the exponentials by the derivatives of (positive mean - negative mean) by the distances, over the   */   \
  /* distances; 0 where a distance is 0, and for the anchor itself.                                                */  \
  void mean_gradients(const T* distances, const Int* identities, int64_t i, int64_t b,                                 \
                      const WeightedMean<T>& positive, const WeightedMean<T>& negative, T* exponentials);              \
  /* out_i (+)= sum over j of weights[i * kPanelRows + j] * (x_i - y_j) for rows_x <= kGroupRows rows of x and    */   \
  /* rows_y <= kPanelRows of y; rows are d apart. The first call for a row sets, later ones add.                   */  \
  void add_weighted_differences(const T* x, int64_t rows_x, const T* y, int64_t rows_y, int64_t d, const T* weights,   \
                                bool first, T* out);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_SOFT_TRIPLET_DECLARATIONS(float, int32_t) PYREID_SOFT_TRIPLET_DECLARATIONS(double, int64_t))
}  // namespace pyreid::cpu
