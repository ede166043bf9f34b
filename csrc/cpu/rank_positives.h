// CPU kernel of rank_positives.
#pragma once
#include <cstdint>

#include "csrc/cpu/parallel.h"
#include "csrc/rank_positives.h"

namespace pyreid::cpu {

// ranks[s]: for each query its positives' ranks, ascending, then -1 for its junk slots. A rank is the number of gallery
// items, junk left out, that come before the positive in the order (value, gallery index).
// nans[q]: the number of NaN among the query's values.
template <class T>
void rank_positives(const RankTask<T>& task,
                    int64_t* ranks,  // [starts[rows]]
                    int64_t* nans,   // [rows]
                    const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
