// Inner products of chosen pairs of rows, in float64; device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include "csrc/pair_products.h"

namespace pyreid::cuda {

// products [task.pairs]: the inner products of x[rows[i]] and y[items[i]]; equal rows give equal bits.
template <class T>
void pair_products(const PairTask<T>& task, double* products, cudaStream_t stream);

}  // namespace pyreid::cuda
