// CUDA kernels of pairwise_distance; arguments as in csrc/cpu/pairwise_distance.h, device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrc/metric.h"

namespace pyreid::cuda {

template <class T>
void squared_norms(const T* x, int64_t n, int64_t d, T* norms, cudaStream_t stream);

template <class T>
void distances_from_products(const T* x, const T* y, const T* x_norms, const T* y_norms, int64_t n, int64_t m,
                             int64_t d, Metric metric, bool same, T* out, cudaStream_t stream);

template <class T>
void distance_gradient_weights(const T* grad, const T* distance, const T* x_norms, const T* y_norms, int64_t n,
                               int64_t m, Metric metric, T* weights, T* x_scale, T* y_scale, cudaStream_t stream);

template <class T>
void scaled_rows_minus(const T* x, const T* scale, int64_t n, int64_t d, T* out, cudaStream_t stream);

}  // namespace pyreid::cuda
