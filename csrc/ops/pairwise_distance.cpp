// pyreid::pairwise_distance: all distances between the rows of two matrices.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/pairwise_distance.cuh"
#else
#include "csrc/cpu/pairwise_distance.h"
#endif
#include "csrc/torch/metric.h"
#include "csrc/torch/op.h"

namespace pyreid {
namespace {

void check_inputs(const Tensor& x, const Tensor& y) {
  STD_TORCH_CHECK(x.dim() == 2 && y.dim() == 2, "pairwise_distance: x and y must be 2-D");
  STD_TORCH_CHECK(x.size(1) == y.size(1), "pairwise_distance: x has ", x.size(1), " columns and y has ", y.size(1));
  STD_TORCH_CHECK(x.scalar_type() == y.scalar_type(), "pairwise_distance: x and y differ in dtype");
  check_devices("pairwise_distance", x, y);
}

// x [N, D], y [M, D] -> distances [N, M]; `same` states that y is x.
Tensor pairwise_distance(const Tensor& x_in, const Tensor& y_in, const std::string& metric_name, bool same) {
  check_inputs(x_in, y_in);
  const Metric metric = parse_metric(metric_name);
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in);
  const Tensor y = same ? x : torch::stable::contiguous(y_in);
  const int64_t n = x.size(0), m = y.size(0), d = x.size(1);
  Tensor out = product(x, torch::stable::transpose(y, 0, 1));
  if (n == 0 || m == 0) return out;
  const Tensor x_norms = empty(x, {n});
  const Tensor y_norms = same ? x_norms : empty(y, {m});
  dispatch_floating(x, "pairwise_distance", [&](auto zero) {
    using T = decltype(zero);
    backend::squared_norms(data<T>(x), n, d, mutable_data<T>(x_norms), launch.context());
    if (!same) backend::squared_norms(data<T>(y), m, d, mutable_data<T>(y_norms), launch.context());
    backend::distances_from_products(data<T>(x), data<T>(y), data<T>(x_norms), data<T>(y_norms), n, m, d, metric, same,
                                     mutable_data<T>(out), launch.context());
  });
  return out;
}

// grad, distance [N, M], x [N, D], y [M, D] -> dx [N, D], dy [M, D]
std::tuple<Tensor, Tensor> pairwise_distance_backward(const Tensor& grad_in, const Tensor& distance_in,
                                                      const Tensor& x_in, const Tensor& y_in,
                                                      const std::string& metric_name) {
  check_inputs(x_in, y_in);
  const Metric metric = parse_metric(metric_name);
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in), y = torch::stable::contiguous(y_in);
  const Tensor grad = torch::stable::contiguous(grad_in), distance = torch::stable::contiguous(distance_in);
  const int64_t n = x.size(0), m = y.size(0), d = x.size(1);
  for (const Tensor& t : {grad, distance}) {
    STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == n && t.size(1) == m && t.scalar_type() == x.scalar_type(),
                    "pairwise_distance_backward: grad and distance must be (N, M) in the dtype of x");
  }
  check_devices("pairwise_distance_backward", x, grad, distance);
  const Tensor weights = empty(x, {n, m}), x_scale = empty(x, {n}), y_scale = empty(x, {m});
  const Tensor x_norms = empty(x, {n}), y_norms = empty(x, {m});
  dispatch_floating(x, "pairwise_distance", [&](auto zero) {
    using T = decltype(zero);
    backend::squared_norms(data<T>(x), n, d, mutable_data<T>(x_norms), launch.context());
    backend::squared_norms(data<T>(y), m, d, mutable_data<T>(y_norms), launch.context());
    backend::distance_gradient_weights(data<T>(grad), data<T>(distance), data<T>(x_norms), data<T>(y_norms), n, m,
                                       metric, mutable_data<T>(weights), mutable_data<T>(x_scale),
                                       mutable_data<T>(y_scale), launch.context());
  });
  Tensor dx = product(weights, y);
  Tensor dy = product(torch::stable::transpose(weights, 0, 1), x);
  dispatch_floating(x, "pairwise_distance", [&](auto zero) {
    using T = decltype(zero);
    backend::scaled_rows_minus(data<T>(x), data<T>(x_scale), n, d, mutable_data<T>(dx), launch.context());
    backend::scaled_rows_minus(data<T>(y), data<T>(y_scale), m, d, mutable_data<T>(dy), launch.context());
  });
  return {dx, dy};
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("pairwise_distance(Tensor x, Tensor y, str metric, bool same) -> Tensor");
  m.def("pairwise_distance_backward(Tensor grad, Tensor distance, Tensor x, Tensor y, str metric) -> (Tensor, Tensor)");
  // The CUDA kernels as they are, with products in the precision that torch is set to: pyreid/ops/pairwise_distance.py
  // registers the operators above for CUDA and calls these in full float32, which the stable ABI cannot ask for.
  m.def("_pairwise_distance(Tensor x, Tensor y, str metric, bool same) -> Tensor");
  m.def(
      "_pairwise_distance_backward(Tensor grad, Tensor distance, Tensor x, Tensor y, str metric) -> (Tensor, Tensor)");
}
#endif

#ifdef PYREID_CUDA_BACKEND
#define PYREID_OP(name) "_" name
#else
#define PYREID_OP(name) name
#endif
STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl(PYREID_OP("pairwise_distance"), TORCH_BOX(&pairwise_distance));
  m.impl(PYREID_OP("pairwise_distance_backward"), TORCH_BOX(&pairwise_distance_backward));
}
#undef PYREID_OP

}  // namespace pyreid
