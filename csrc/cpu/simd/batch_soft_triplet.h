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

// Columns of x that one call of weighted_difference_sums is best given: whole tiles of vectors, in bytes.
inline constexpr int64_t kStripBytes = 192;

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
  /* sums[i, j] = grads[i] * weights[i, j] + grads[j] * weights[j, i] for the rows i of [first, last); the matrices */ \
  /* are [B, B]                                                                                                    */  \
  void pair_weights(const T* weights, const T* grads, int64_t first, int64_t last, int64_t b, T* sums);                \
  /* out_i = sum over j of weights[i, j] * (x_i - x_j) for the rows i of [first, last) and the columns [begin, end) */ \
  /* of x and out, which are [B, D]                                                                                */  \
  void weighted_difference_sums(const T* x, const T* weights, int64_t first, int64_t last, int64_t begin, int64_t end, \
                                int64_t b, int64_t d, T* out);

namespace pyreid::cpu {
PYREID_DECLARE_SIMD(PYREID_SOFT_TRIPLET_DECLARATIONS(float, int32_t) PYREID_SOFT_TRIPLET_DECLARATIONS(double, int64_t))
}  // namespace pyreid::cpu
