// A 64-bit hash of every row: equal rows have equal hashes, and rows that differ hardly ever.
#pragma once
#include <cstdint>

#include "csrc/cpu/parallel.h"

namespace pyreid::cpu {

// Word is an unsigned integer of the elements' size.
template <class Word>
void row_hashes(const Word* x,  // [N, D]
                int64_t n, int64_t d,
                int64_t* hashes,  // [N]
                const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
