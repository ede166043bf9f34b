// Counts the negatives before each positive where approximate products suffice, and lists those where they do not;
// device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include "csrc/screen_negatives.h"

namespace pyreid::cuda {

// entered [starts[rows]]: grows by one for each decided item, at the first threshold that it precedes. undecided [rows]
// counts the others, and items [rows, capacity] lists each row's, as far as it has room, in any order; the rest stays
// as it is.
void screen_negatives(const ScreenTask& task, int64_t* entered, int32_t* items, int64_t* undecided,
                      cudaStream_t stream);

}  // namespace pyreid::cuda
