// CPU kernels of batch_soft_triplet.
#pragma once
#include <cstdint>

#include "csrc/cpu/parallel.h"
#include "csrc/triplet.h"

namespace pyreid::cpu {

template <class T>
void batch_soft_triplet(T* squared,             // [B, B], squared distances; overwritten
                        const int64_t* labels,  // [B]
                        int64_t b, Margin margin, Reduction reduction,
                        T* losses,   // [B], 0 for anchors without a positive or a negative
                        T* loss,     // [], their mean or sum; not written for Reduction::kNone
                        T* weights,  // [B, B]: d(difference of anchor i's means) / d(distance), over the distance
                        T* slopes,   // [B]: d(reduced loss) / d(difference)
                        const ParallelFor& parallel_for);

template <class T>
void batch_soft_triplet_backward(const T* grad,  // [B] or []
                                 bool per_anchor,
                                 const T* x,        // [B, D]
                                 const T* weights,  // [B, B]
                                 const T* slopes,   // [B]
                                 int64_t b, int64_t d,
                                 T* dx,  // [B, D]
                                 const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
