// pyreid::spatial_gate: local = relu(sigmoid(conv(leaky_relu(conv(x)))) x) and its pools, with depthwise 3x3 filters.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/spatial_gate.cuh"
#else
#include "csrc/cpu/spatial_gate.h"
#endif
#include <limits>
#include <optional>

#include "csrc/torch/op.h"

namespace pyreid {
namespace {

constexpr int64_t kTaps = 9;

struct Shape {
  int64_t samples, channels, height, width;
  int64_t planes() const { return samples * channels; }
};

Shape check_inputs(const Tensor& x, const Tensor& weight1, const Tensor& weight2) {
  STD_TORCH_CHECK(x.dim() == 4, "spatial_gate: x must be (N, C, H, W)");
  const Shape shape{x.size(0), x.size(1), x.size(2), x.size(3)};
  STD_TORCH_CHECK(shape.height > 0 && shape.width > 0, "spatial_gate: x has no pixels");
  STD_TORCH_CHECK(shape.height <= std::numeric_limits<int32_t>::max() / shape.width,
                  "spatial_gate: a plane of x has 2^31 pixels or more");
  check_devices("spatial_gate", x, weight1, weight2);
  for (const Tensor& weight : {weight1, weight2}) {
    STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == shape.channels && weight.size(1) == 1 &&
                        weight.size(2) == 3 && weight.size(3) == 3,
                    "spatial_gate: weights must be (C, 1, 3, 3)");
    STD_TORCH_CHECK(weight.scalar_type() == computing_type(x),
                    "spatial_gate: weights must be float64 for float64 x, else float32");
  }
  return shape;
}

// x (N, C, H, W), weights (C, 1, 3, 3) in float32 (float64 for float64 x) -> local (N, C, H, W), its mean and maximum
// (N, C), and for the backward int64 (N, C): the first position of the maximum.
std::tuple<Tensor, Tensor, Tensor, Tensor> spatial_gate(const Tensor& x_in, const Tensor& weight1_in,
                                                        const Tensor& weight2_in, double negative_slope) {
  const Shape shape = check_inputs(x_in, weight1_in, weight2_in);
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in);
  const Tensor weight1 = torch::stable::contiguous(weight1_in), weight2 = torch::stable::contiguous(weight2_in);
  Tensor local = empty(x, {shape.samples, shape.channels, shape.height, shape.width});
  Tensor avg = empty(x, {shape.samples, shape.channels}), max = empty(x, {shape.samples, shape.channels});
  Tensor argmax = empty(x, {shape.samples, shape.channels}, ScalarType::Long);
  dispatch_floating_and_half(x, "spatial_gate", [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    if (shape.planes() == 0) return;
    backend::spatial_gate<S, T>(data<S>(x), data<T>(weight1), data<T>(weight2), shape.samples, shape.channels,
                                shape.height, shape.width, static_cast<T>(negative_slope), mutable_data<S>(local),
                                mutable_data<S>(avg), mutable_data<S>(max), mutable_data<int64_t>(argmax),
                                launch.context());
  });
  return {local, avg, max, argmax};
}

std::optional<Tensor> check_gradient(const std::optional<Tensor>& grad, const Tensor& x, int64_t count) {
  if (!grad.has_value()) return std::nullopt;
  STD_TORCH_CHECK(grad->scalar_type() == x.scalar_type() && grad->numel() == count,
                  "spatial_gate: a gradient does not fit x");
  check_devices("spatial_gate", x, grad);
  return torch::stable::contiguous(*grad);
}

// Gradients of local, avg and max, each of them absent for zero -> dx like x, dweight1 and dweight2 like the weights;
// empty unless needed.
std::tuple<Tensor, Tensor, Tensor> spatial_gate_backward(const std::optional<Tensor>& dlocal_in,
                                                         const std::optional<Tensor>& davg_in,
                                                         const std::optional<Tensor>& dmax_in, const Tensor& x_in,
                                                         const Tensor& weight1_in, const Tensor& weight2_in,
                                                         const Tensor& argmax_in, double negative_slope, bool needs_x,
                                                         bool needs_weights) {
  const Shape shape = check_inputs(x_in, weight1_in, weight2_in);
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in), argmax = torch::stable::contiguous(argmax_in);
  const Tensor weight1 = torch::stable::contiguous(weight1_in), weight2 = torch::stable::contiguous(weight2_in);
  const auto dlocal = check_gradient(dlocal_in, x, x.numel());
  const auto davg = check_gradient(davg_in, x, shape.planes()), dmax = check_gradient(dmax_in, x, shape.planes());
  STD_TORCH_CHECK(argmax.scalar_type() == ScalarType::Long && argmax.numel() == shape.planes(),
                  "spatial_gate: argmax must come from the forward");
  check_devices("spatial_gate", x, argmax);
  Tensor dx = needs_x ? empty(x, {shape.samples, shape.channels, shape.height, shape.width}) : empty(x, {int64_t{0}});
  const std::vector<int64_t> weight_shape =
      needs_weights ? std::vector<int64_t>{shape.channels, 1, 3, 3} : std::vector<int64_t>{0};
  Tensor dweight1 = empty(weight1, weight_shape), dweight2 = empty(weight2, weight_shape);
  const Tensor partial = empty(weight1, {needs_weights ? shape.planes() : 0, 2 * kTaps});
  dispatch_floating_and_half(x, "spatial_gate", [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const auto pointer = [](const std::optional<Tensor>& t) { return t.has_value() ? data<S>(*t) : nullptr; };
    if (shape.planes() > 0 && (needs_x || needs_weights)) {
      backend::spatial_gate_gradient<S, T>(pointer(dlocal), pointer(davg), pointer(dmax), data<S>(x), data<T>(weight1),
                                           data<T>(weight2), data<int64_t>(argmax), shape.samples, shape.channels,
                                           shape.height, shape.width, static_cast<T>(negative_slope),
                                           needs_x ? mutable_data<S>(dx) : nullptr,
                                           needs_weights ? mutable_data<T>(partial) : nullptr, launch.context());
    }
    if (needs_weights && shape.channels > 0) {
      backend::spatial_gate_weight_gradient<T>(data<T>(partial), shape.samples, shape.channels,
                                               mutable_data<T>(dweight1), mutable_data<T>(dweight2), launch.context());
    }
  });
  return {dx, dweight1, dweight2};
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def(
      "spatial_gate(Tensor x, Tensor weight1, Tensor weight2, float negative_slope)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "spatial_gate_backward(Tensor? dlocal, Tensor? davg, Tensor? dmax, Tensor x, Tensor weight1, Tensor weight2,"
      " Tensor argmax, float negative_slope, bool needs_x, bool needs_weights) -> (Tensor, Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl("spatial_gate", TORCH_BOX(&spatial_gate));
  m.impl("spatial_gate_backward", TORCH_BOX(&spatial_gate_backward));
}

}  // namespace pyreid
