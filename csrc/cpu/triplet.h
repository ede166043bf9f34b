// What both triplet operators do with labels and with the losses of the anchors.
#pragma once
#include <cstdint>
#include <type_traits>
#include <vector>

#include "csrc/triplet.h"

namespace pyreid::cpu {

// Identities as the vector code compares them: as wide as the distances.
template <class T>
using Identity = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <class T>
struct Anchors {
  std::vector<Identity<T>> identities;  // [B], numbered from 0 in the order of the labels
  std::vector<char> valid;              // [B], whether the anchor has a positive and a negative
  int64_t count;                        // of valid anchors
};

template <class T>
Anchors<T> find_anchors(const int64_t* labels,  // [B]
                        int64_t b);

// What the derivative of the reduced loss by one anchor's loss is.
template <class T>
T reduction_scale(const Anchors<T>& anchors, Reduction reduction) {
  return reduction == Reduction::kMean && anchors.count > 0 ? T(1) / static_cast<T>(anchors.count) : T(1);
}

// The mean or sum of the losses; nothing for Reduction::kNone. The order of summation is that of the anchors.
template <class T>
void reduce_losses(const T* losses,  // [B], 0 where an anchor is not valid
                   const Anchors<T>& anchors, Reduction reduction,
                   T* loss);  // []

}  // namespace pyreid::cpu
