// CPU kernels of gate_and_pool: local = relu(sigmoid(gate) x) with the average and the maximum of each row of `local`,
// before it is rounded to S. A row is one channel of one sample: n > 0 values of storage type S, computed in T (float,
// or double for double).
#pragma once
#include <cstdint>

#include "csrc/cpu/half.h"
#include "csrc/cpu/parallel.h"

namespace pyreid::cpu {

template <class S>
void gate_and_pool(const S* x, const S* gate,  // [rows, n]
                   int64_t rows, int64_t n,
                   S* local,  // [rows, n]
                   S* avg, S* largest,
                   int64_t* index,  // [rows], the first place of the largest value
                   const ParallelFor& parallel_for);

// dx and dgate from the gradients of local, avg and largest, each of which may be null. A null output is not computed.
template <class S>
void gate_and_pool_gradient(const S* dlocal,                           // [rows, n]
                            const S* davg, const S* dlargest,          // [rows]
                            const S* x, const S* gate,                 // [rows, n]
                            const int64_t* index,                      // [rows]
                            int64_t rows, int64_t n, S* dx, S* dgate,  // [rows, n]
                            const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
