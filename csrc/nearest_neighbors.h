// What the kernels of nearest_neighbors share on both backends.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "csrc/host_device.h"
#include "csrc/metric.h"
#include "csrc/rank_value.h"

namespace pyreid {

// A gallery item and its value (csrc/rank_value.h) as one unsigned number that sorts by (value, index), NaN last: no
// two items are equal, so whatever picks the k smallest finds the same ones. float32 leaves 32 bits for the index.
struct WideNeighbor {
  uint64_t bits;
  uint64_t index;
};
PYREID_HOST_DEVICE inline bool operator<(const WideNeighbor& a, const WideNeighbor& b) {
  return a.bits < b.bits || (a.bits == b.bits && a.index < b.index);
}

template <class T>
struct NeighborOf;
template <>
struct NeighborOf<float> {
  using type = uint64_t;
};
template <>
struct NeighborOf<double> {
  using type = WideNeighbor;
};
template <class T>
using Neighbor = typename NeighborOf<T>::type;

// The last index that a float32 neighbor holds is left to the one that comes after all others.
inline constexpr int64_t kMostFloatNeighbors = 0xffffffff;

PYREID_HOST_DEVICE inline Neighbor<float> make_neighbor(float value, int64_t index) {
  uint32_t bits = 0xffffffffu;  // NaN
  if (value == value) {
    if (value == 0) value = 0;  // -0 equals 0
    memcpy(&bits, &value, sizeof(bits));
    bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;
  }
  return uint64_t{bits} << 32 | static_cast<uint32_t>(index);
}
PYREID_HOST_DEVICE inline Neighbor<double> make_neighbor(double value, int64_t index) {
  uint64_t bits = ~uint64_t{0};
  if (value == value) {
    if (value == 0) value = 0;
    memcpy(&bits, &value, sizeof(bits));
    bits ^= bits >> 63 ? ~uint64_t{0} : uint64_t{1} << 63;
  }
  return {bits, static_cast<uint64_t>(index)};
}

PYREID_HOST_DEVICE inline int64_t index_of(Neighbor<float> n) { return static_cast<int64_t>(n & 0xffffffffu); }
PYREID_HOST_DEVICE inline int64_t index_of(const Neighbor<double>& n) { return static_cast<int64_t>(n.index); }

PYREID_HOST_DEVICE inline float value_of(Neighbor<float> n) {
  uint32_t bits = static_cast<uint32_t>(n >> 32);
  bits ^= bits >> 31 ? 0x80000000u : 0xffffffffu;  // all ones become a NaN
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
PYREID_HOST_DEVICE inline double value_of(const Neighbor<double>& n) {
  const uint64_t bits = n.bits ^ (n.bits >> 63 ? uint64_t{1} << 63 : ~uint64_t{0});
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// A tile of inner products: all queries of a strip against the gallery items first, first + 1, ...
template <class T>
struct NearestTile {
  const T* products;  // [rows, columns], row_stride apart
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  const T* offset;  // [columns] or null (csrc/rank_value.h)
  const T* scale;   // [columns] or null
  int64_t first;
};

// Queries and gallery with the squared norms of their rows.
template <class T>
struct NearestFeatures {
  const T* query;          // [rows, d]
  const T* gallery;        // [columns, d]
  const T* query_norms;    // [rows]
  const T* gallery_norms;  // [columns]
  int64_t rows;
  int64_t columns;
  int64_t d;
};

// The distance of a pair before the root, from the value that ranked it, with which it rises. -1 if cancellation may
// have taken more than six bits of it, or the norms overflow: then it is summed again from the features (MultipleOf).
template <class T>
PYREID_HOST_DEVICE inline T distance_from_value(T value, T query_norm, T gallery_norm, T query_inverse, Metric metric) {
  const bool cosine = metric == Metric::kCosine;
  const T distance = cosine ? T(1) + value * query_inverse : query_norm + T(2) * value;
  const T scale = cosine ? T(1) : query_norm + gallery_norm;
  return distance >= T(kCancellation) * scale ? distance : T(-1);
}

// |a| / |b| from squared norms, whose own quotient may leave the range of T; exactly 1 for equal norms.
template <class T>
PYREID_HOST_DEVICE inline T ratio_of_lengths(T squared, T other_squared) {
  using std::sqrt;
  return sqrt(squared) / sqrt(other_squared);
}

// How a distance is summed from features: as |a - r b|^2 with r = 1, or for cosine, divided by 2 |a|^2, with a the
// shorter of the two and r = |a| / |b|, so that nothing overflows. That is exactly 0 for equal rows.
template <class T>
struct MultipleOf {
  const T* a;
  const T* b;
  T ratio, squared_a;

  PYREID_HOST_DEVICE MultipleOf(const T* query, const T* item, T query_norm, T item_norm, Metric metric)
      : a(query), b(item), ratio(1), squared_a(query_norm) {
    if (metric != Metric::kCosine) return;
    const bool item_is_shorter = item_norm < query_norm;
    a = item_is_shorter ? item : query;
    b = item_is_shorter ? query : item;
    squared_a = item_is_shorter ? item_norm : query_norm;
    ratio = ratio_of_lengths(squared_a, item_is_shorter ? query_norm : item_norm);
  }

  PYREID_HOST_DEVICE T distance(T sum, Metric metric) const {
    using std::sqrt;
    if (metric == Metric::kCosine) return sum / squared_a / T(2);
    return metric == Metric::kEuclidean ? sqrt(sum) : sum;
  }
};

// The gradient of a distance with respect to one row of the pair is weight (scale row - other row).
template <class T>
struct PairGradient {
  T weight, scale;
};
// The inverses are 1 / |row| and 1 / |other|, 0 for a row of zeros: it has no direction, and gives and takes no
// gradient. The ratio is |other| / |row|, exactly 1 for equal rows, whose gradient is then exactly 0.
template <class T>
PYREID_HOST_DEVICE inline PairGradient<T> pair_gradient(T grad, T distance, T inverse, T other_inverse, T ratio,
                                                        Metric metric) {
  if (metric == Metric::kSquaredEuclidean) return {T(2) * grad, T(1)};
  if (metric == Metric::kEuclidean) return {distance > T(0) ? grad / distance : T(0), T(1)};
  const T weight = grad * inverse * other_inverse;
  return {weight, weight == T(0) ? T(0) : (T(1) - distance) * ratio};
}

}  // namespace pyreid
