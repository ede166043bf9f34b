// CPU kernels of batch_hard_triplet.
#pragma once
#include <cstdint>

#include "csrc/cpu/parallel.h"
#include "csrc/triplet.h"

namespace pyreid::cpu {

template <class T>
void batch_hard_triplet(const T* squared,       // [B, B], squared distances
                        const int64_t* labels,  // [B]
                        int64_t b, Margin margin, Reduction reduction,
                        T* losses,       // [B], 0 for anchors without a positive or a negative
                        T* loss,         // [], their mean or sum; not written for Reduction::kNone
                        int32_t* pairs,  // [2, B]: hardest positives, hardest negatives; -1 for anchors without both
                        T* slopes,       // [2, B]: d(reduced loss) / d(distance), over the distance; 0 at distance 0
                        const ParallelFor& parallel_for);

template <class T>
void batch_hard_triplet_backward(const T* grad,  // [B] or []
                                 bool per_anchor,
                                 const T* x,            // [B, D]
                                 const int32_t* pairs,  // [2, B]
                                 const T* slopes,       // [2, B]
                                 int64_t b, int64_t d,
                                 T* dx,  // [B, D]
                                 const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
