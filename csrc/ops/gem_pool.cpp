// pyreid::gem_pool: generalised-mean pooling over all positions of a feature map.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/gem_pool.cuh"
#else
#include "csrc/cpu/gem_pool.h"
#endif
#include <optional>

#include "csrc/torch/op.h"

namespace pyreid {
namespace {

struct Shape {
  int64_t samples, channels, positions;
};

Shape check_inputs(const Tensor& x, const std::optional<Tensor>& p, double eps) {
  STD_TORCH_CHECK(x.dim() == 3 || x.dim() == 4, "gem_pool: x must be (N, C, L) or (N, C, H, W)");
  const Shape shape{x.size(0), x.size(1), x.dim() == 3 ? x.size(2) : x.size(2) * x.size(3)};
  STD_TORCH_CHECK(shape.positions > 0, "gem_pool: x has no positions to pool over");
  STD_TORCH_CHECK(eps > 0, "gem_pool: eps must be positive");
  check_devices("gem_pool", x, p);
  if (p.has_value()) {
    STD_TORCH_CHECK(p->dim() == 1 && (p->size(0) == 1 || p->size(0) == shape.channels),
                    "gem_pool: p must have 1 or C values");
    STD_TORCH_CHECK(p->scalar_type() == computing_type(x), "gem_pool: p must be float64 for float64 x, else float32");
  }
  return shape;
}

// Whether the channels of a position are neighbours and everything else follows in order: channels_last, or (N, L, C)
// seen as (N, C, L). Dimensions of one element have no stride to speak of; a tensor that is contiguous in both senses
// counts as contiguous.
bool is_channels_last(const Tensor& x) {
  if (x.is_contiguous()) return false;
  int64_t expected = 1;
  const auto follows = [&](int64_t dim) {
    const bool fits = x.size(dim) == 1 || x.stride(dim) == expected;
    expected *= x.size(dim);
    return fits;
  };
  bool all = follows(1);
  for (int64_t dim = x.dim() - 1; dim > 1; --dim) all = follows(dim) && all;
  return follows(0) && all;
}

template <class T>
GemExponent<T> exponent(const std::optional<Tensor>& p, double value) {
  return {p.has_value() ? data<T>(*p) : nullptr, p.has_value() ? p->size(0) : 0, static_cast<T>(value)};
}

std::optional<Tensor> contiguous(const std::optional<Tensor>& t) {
  return t.has_value() ? std::optional<Tensor>(torch::stable::contiguous(*t)) : std::nullopt;
}

// x (N, C, L) or (N, C, H, W), contiguous or with channels last (other strides are copied), p (1,) or (C,) in float32
// (float64 for float64 x), or none: then `value` -> the pooled values (N, C) in p's dtype, and what the backward needs
// of each row: statistics (2 or 3, N, C) hold the largest value, the gradient of an element that has it, and with a
// tensor p the derivative by it.
std::tuple<Tensor, Tensor> gem_pool(const Tensor& x_in, const std::optional<Tensor>& p_in, double value, double eps) {
  const Shape shape = check_inputs(x_in, p_in, eps);
  const Launch launch(x_in);
  const bool channels_last = is_channels_last(x_in);
  const Tensor x = channels_last ? x_in : torch::stable::contiguous(x_in);
  const std::optional<Tensor> p = contiguous(p_in);
  const int64_t rows = shape.samples * shape.channels;
  const ScalarType dtype = computing_type(x);
  Tensor pooled = empty(x, {shape.samples, shape.channels}, dtype);
  Tensor statistics = empty(x, {p.has_value() ? 3 : 2, shape.samples, shape.channels}, dtype);
  if (rows == 0) return {pooled, statistics};
  dispatch_floating_and_half(x, "gem_pool", [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    T* largest = mutable_data<T>(statistics);
    backend::gem_pool<S, T>(data<S>(x), shape.samples, shape.channels, shape.positions, channels_last,
                            exponent<T>(p, value), static_cast<T>(eps), mutable_data<T>(pooled), largest,
                            largest + rows, p.has_value() ? largest + 2 * rows : nullptr, launch.context());
  });
  return {pooled, statistics};
}

// grad (N, C) of the pooled values -> dx like x, in memory too if it is contiguous or channels last, dp like p (empty
// without p)
std::tuple<Tensor, Tensor> gem_pool_backward(const Tensor& grad_in, const Tensor& x_in, const Tensor& statistics_in,
                                             const std::optional<Tensor>& p_in, double value, double eps) {
  const Shape shape = check_inputs(x_in, p_in, eps);
  const Launch launch(x_in);
  const bool channels_last = is_channels_last(x_in);
  const Tensor x = channels_last ? x_in : torch::stable::contiguous(x_in);
  const Tensor grad = torch::stable::contiguous(grad_in);
  const Tensor statistics = torch::stable::contiguous(statistics_in);
  const std::optional<Tensor> p = contiguous(p_in);
  const int64_t rows = shape.samples * shape.channels, count = p.has_value() ? p->size(0) : 0;
  STD_TORCH_CHECK(grad.dim() == 2 && grad.numel() == rows && statistics.numel() == (count > 0 ? 3 : 2) * rows,
                  "gem_pool: grad and statistics do not fit x");
  check_devices("gem_pool", x, grad, statistics);
  STD_TORCH_CHECK(grad.scalar_type() == statistics.scalar_type(), "gem_pool: grad and statistics differ in dtype");
  Tensor dx = torch::stable::empty_like(x);  // with the strides of x
  Tensor dp = empty(grad, {count});
  const Tensor by_channel = empty(grad, {count > 0 ? shape.channels : 0}, ScalarType::Double);
  dispatch_floating_and_half(x, "gem_pool", [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const T* largest = data<T>(statistics);
    if (rows > 0) {
      backend::gem_pool_gradient<S, T>(data<T>(grad), data<S>(x), largest, largest + rows, shape.samples,
                                       shape.channels, shape.positions, channels_last, exponent<T>(p, value),
                                       static_cast<T>(eps), mutable_data<S>(dx), launch.context());
    }
    if (count > 0) {
      backend::gem_pool_exponent_gradient<T>(data<T>(grad), largest + 2 * rows, shape.samples, shape.channels,
                                             mutable_data<double>(by_channel), count, mutable_data<T>(dp),
                                             launch.context());
    }
  });
  return {dx, dp};
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("gem_pool(Tensor x, Tensor? p, float value, float eps) -> (Tensor, Tensor)");
  m.def(
      "gem_pool_backward(Tensor grad, Tensor x, Tensor statistics, Tensor? p, float value, float eps)"
      " -> (Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl("gem_pool", TORCH_BOX(&gem_pool));
  m.impl("gem_pool_backward", TORCH_BOX(&gem_pool_backward));
}

}  // namespace pyreid
