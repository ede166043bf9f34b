// Counts the negatives before each positive where approximate products suffice, and lists those where they do not.
#pragma once
#include "csrc/cpu/parallel.h"
#include "csrc/screen_negatives.h"

namespace pyreid::cpu {

// entered [starts[rows]]: grows by one for each decided item, at the first threshold that it precedes. undecided [rows]
// counts the others, and items [rows, capacity] lists each row's, as far as it has room; the rest stays as it is.
void screen_negatives(const ScreenTask& task, int64_t* entered, int32_t* items, int64_t* undecided,
                      const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
