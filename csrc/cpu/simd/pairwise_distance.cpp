#include "csrc/cpu/simd/pairwise_distance.h"

#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// A row of zero length has no direction: its cosine similarity with anything is 0.
template <class T>
inline T inverse_norm(T squared) {
  return squared > 0 ? T(1) / root(squared) : T(0);
}

template <class T>
bool distance_row_impl(T* row, T x_norm, const T* y_norms, int64_t m, Metric metric) {
  if (metric == Metric::kCosine) {
    const T x_inverse = inverse_norm(x_norm);
    for (int64_t j = 0; j < m; ++j) row[j] = T(1) - row[j] * x_inverse * inverse_norm(y_norms[j]);
    return false;
  }
  int64_t cancelled = 0;
  for (int64_t j = 0; j < m; ++j) {
    const T norms = x_norm + y_norms[j];
    const T squared = norms - T(2) * row[j];
    const bool cancels = !(squared >= T(kCancellation) * norms);  // also when the norms overflow
    cancelled += cancels;
    row[j] = cancels ? T(-1) : squared;
  }
  if (metric == Metric::kEuclidean) {
    for (int64_t j = 0; j < m; ++j) row[j] = row[j] < 0 ? T(-1) : root(row[j]);
  }
  return cancelled > 0;
}

template <class T>
T gradient_row_impl(const T* grad, const T* distance, T x_norm, const T* y_norms, int64_t m, Metric metric,
                    T* weights) {
  T sum = 0;
  if (metric == Metric::kCosine) {
    const T x_inverse = inverse_norm(x_norm);
    for (int64_t j = 0; j < m; ++j) {
      weights[j] = grad[j] * x_inverse * inverse_norm(y_norms[j]);
      sum += grad[j] * (T(1) - distance[j]);
    }
    return sum * x_inverse * x_inverse;
  }
  for (int64_t j = 0; j < m; ++j) {
    // At distance 0 the Euclidean norm has no gradient; 0 is the subgradient that autograd users expect.
    const T weight = metric == Metric::kSquaredEuclidean ? T(2) * grad[j]
                     : distance[j] > 0                   ? grad[j] / distance[j]
                                                         : T(0);
    weights[j] = weight;
    sum += weight;
  }
  return sum;
}

}  // namespace

#define PYREID_DEFINE_PAIRWISE(T)                                                                                      \
  bool distance_row(T* row, T x_norm, const T* y_norms, int64_t m, Metric metric) {                                    \
    return distance_row_impl(row, x_norm, y_norms, m, metric);                                                         \
  }                                                                                                                    \
  T gradient_row(const T* grad, const T* distance, T x_norm, const T* y_norms, int64_t m, Metric metric, T* weights) { \
    return gradient_row_impl(grad, distance, x_norm, y_norms, m, metric, weights);                                     \
  }

PYREID_DEFINE_PAIRWISE(float)
PYREID_DEFINE_PAIRWISE(double)

}  // namespace pyreid::cpu::PYREID_ISA
