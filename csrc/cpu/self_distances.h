// All squared distances between the rows of one matrix, by differences: near duplicates keep their digits.
#pragma once
#include <cstdint>

#include "csrc/cpu/parallel.h"

namespace pyreid::cpu {

// Each pair is summed once and written twice: the matrix is exactly symmetric, its diagonal 0 (NaN for a row with NaN
// or infinity). Equal rows have equal distances to any third one, bit for bit.
template <class T>
void squared_self_distances(const T* x,  // [B, D]
                            int64_t b, int64_t d,
                            T* squared,  // [B, B]
                            const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
