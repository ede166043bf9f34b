// Where the paths of the triplet operators part.
#pragma once
#include <cstdint>

namespace pyreid::cuda {

// Batches up to this size take the path of one launch (small_triplet.cuh).
inline constexpr int64_t kSmallBatch = 256;

}  // namespace pyreid::cuda
