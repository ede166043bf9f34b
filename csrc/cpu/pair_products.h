// Inner products of chosen pairs of rows, in float64.
#pragma once
#include "csrc/cpu/parallel.h"
#include "csrc/pair_products.h"

namespace pyreid::cpu {

// products [task.pairs]: the inner products of x[rows[i]] and y[items[i]]; equal rows give equal bits.
template <class T>
void pair_products(const PairTask<T>& task, double* products, const ParallelFor& parallel_for);

}  // namespace pyreid::cpu
