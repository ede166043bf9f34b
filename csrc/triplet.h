// The triplet loss of one anchor and how the losses of a batch are put together, shared by both backends.
#pragma once
#include <cmath>

#include "csrc/host_device.h"

namespace pyreid {

enum class Reduction : int { kMean, kSum, kNone };

struct Margin {
  bool soft;     // ln(1 + exp(difference)) instead of the hinge
  double value;  // of the hinge
};

// What an anchor with a positive and a negative costs whose distances to them differ by `difference`, and the
// derivative. Comparisons are written so that NaN stays NaN.
template <class T>
PYREID_HOST_DEVICE inline void triplet_loss(T difference, Margin margin, T* loss, T* slope) {
  using std::exp;
  using std::log1p;
  if (margin.soft) {
    const T e = exp(difference > T(0) ? -difference : difference);  // in (0, 1]: no overflow
    *loss = (difference > T(0) ? difference : T(0)) + log1p(e);
    *slope = (difference > T(0) ? T(1) : e) / (T(1) + e);
  } else {
    const T hinge = difference + static_cast<T>(margin.value);
    *loss = hinge <= T(0) ? T(0) : hinge;
    *slope = hinge <= T(0) ? T(0) : T(1);
  }
}

}  // namespace pyreid
