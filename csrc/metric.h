// The distances of pyreid, shared by both backends.
#pragma once

namespace pyreid {

enum class Metric : int { kEuclidean, kSquaredEuclidean, kCosine };

// |x|^2 + |y|^2 - 2 x.y loses digits when x and y are close: its error relative to the result grows as
// (|x|^2 + |y|^2) / |x - y|^2. Below this fraction of the norms the difference is summed directly instead, which bounds
// the loss to six bits.
inline constexpr double kCancellation = 1.0 / 64;

}  // namespace pyreid
