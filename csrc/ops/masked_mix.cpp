// pyreid::masked_mix: mask local + (1 - mask) relu(x + identity), a mask for each channel.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/masked_mix.cuh"
#else
#include "csrc/cpu/masked_mix.h"
#endif
#include "csrc/torch/op.h"

namespace pyreid {
namespace {

using torch::headeronly::MemoryFormat;

MixShape check_inputs(const Tensor& x, const Tensor& mask, bool channels_last) {
  STD_TORCH_CHECK(x.dim() == 4 || (x.dim() == 3 && !channels_last),
                  "masked_mix: x must be (N, C, L) or (N, C, H, W), and 4-D for channels_last");
  const int64_t samples = x.size(0), channels = x.size(1);
  const bool per_sample = mask.dim() == 2;
  STD_TORCH_CHECK((per_sample && mask.size(0) == samples && mask.size(1) == channels) ||
                      (mask.dim() == 1 && mask.size(0) == channels),
                  "masked_mix: mask must be (C,) or (N, C)");
  STD_TORCH_CHECK(mask.scalar_type() == computing_type(x),
                  "masked_mix: mask must be float64 for float64 x, else float32");
  check_devices("masked_mix", x, mask);
  return {samples, channels, x.dim() == 3 ? x.size(2) : x.size(2) * x.size(3), channels_last, per_sample};
}

// The tensor in the layout to compute in, after a check that it is like x.
Tensor laid_out(const Tensor& t, const Tensor& x, bool channels_last) {
  bool fits = t.scalar_type() == x.scalar_type() && t.dim() == x.dim();
  for (int64_t d = 0; fits && d < x.dim(); ++d) fits = t.size(d) == x.size(d);
  STD_TORCH_CHECK(fits, "masked_mix: all feature maps must have the shape and dtype of x");
  check_devices("masked_mix", x, t);
  return torch::stable::contiguous(t, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

Tensor empty_map(const Tensor& x, bool wanted, bool channels_last) {
  if (!wanted) return empty(x, {0});
  return torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

template <class T>
T* data_or_null(const Tensor& t, bool wanted) {
  return wanted ? mutable_data<T>(t) : nullptr;
}

// local, x, identity (N, C, L) or (N, C, H, W), alike; mask (C,) or (N, C) in float32 (float64 for float64 maps) -> the
// mix, like x, in the layout that channels_last says
Tensor masked_mix(const Tensor& local_in, const Tensor& x_in, const Tensor& identity_in, const Tensor& mask_in,
                  bool channels_last) {
  const MixShape shape = check_inputs(x_in, mask_in, channels_last);
  const Launch launch(x_in);
  const Tensor x = laid_out(x_in, x_in, channels_last), local = laid_out(local_in, x_in, channels_last);
  const Tensor identity = laid_out(identity_in, x_in, channels_last), mask = torch::stable::contiguous(mask_in);
  Tensor out = empty_map(x_in, true, channels_last);
  if (shape.elements() == 0) return out;
  dispatch_floating_and_half(x, "masked_mix", [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    backend::masked_mix<S, T>(data<S>(local), data<S>(x), data<S>(identity), data<T>(mask), shape, mutable_data<S>(out),
                              launch.context());
  });
  return out;
}

// grad like x -> the gradients of local, of x (which is that of identity as well) and of the mask; empty if not wanted
std::tuple<Tensor, Tensor, Tensor> masked_mix_backward(const Tensor& grad_in, const Tensor& local_in,
                                                       const Tensor& x_in, const Tensor& identity_in,
                                                       const Tensor& mask_in, bool channels_last, bool for_local,
                                                       bool for_sum, bool for_mask) {
  const MixShape shape = check_inputs(x_in, mask_in, channels_last);
  const Launch launch(x_in);
  const Tensor x = laid_out(x_in, x_in, channels_last), local = laid_out(local_in, x_in, channels_last);
  const Tensor identity = laid_out(identity_in, x_in, channels_last), grad = laid_out(grad_in, x_in, channels_last);
  const Tensor mask = torch::stable::contiguous(mask_in);
  const Tensor dlocal = empty_map(x_in, for_local, channels_last), dx = empty_map(x_in, for_sum, channels_last);
  // One sum for each value of the mask is its gradient; else those sums are added by a second pass.
  const bool in_one_pass = shape.mask_per_sample && shape.chunks() == 1;
  const Tensor partials = empty(mask, {for_mask ? shape.samples * shape.chunks() * shape.channels : 0});
  const Tensor dmask = !for_mask               ? empty(mask, {0})
                       : shape.mask_per_sample ? empty(mask, {shape.samples, shape.channels})
                                               : empty(mask, {shape.channels});
  dispatch_floating_and_half(x, "masked_mix", [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const Tensor& sums = in_one_pass ? dmask : partials;
    if (shape.samples * shape.channels > 0) {
      backend::masked_mix_gradient<S, T>(data<S>(grad), data<S>(local), data<S>(x), data<S>(identity), data<T>(mask),
                                         shape, data_or_null<S>(dlocal, for_local), data_or_null<S>(dx, for_sum),
                                         data_or_null<T>(sums, for_mask), launch.context());
    }
    if (for_mask && !in_one_pass && dmask.numel() > 0) {
      backend::masked_mix_mask_gradient<T>(data<T>(partials), shape, mutable_data<T>(dmask), launch.context());
    }
  });
  return {dlocal, dx, dmask};
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("masked_mix(Tensor local, Tensor x, Tensor identity, Tensor mask, bool channels_last) -> Tensor");
  m.def(
      "masked_mix_backward(Tensor grad, Tensor local, Tensor x, Tensor identity, Tensor mask, bool channels_last,"
      " bool for_local, bool for_sum, bool for_mask) -> (Tensor, Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl("masked_mix", TORCH_BOX(&masked_mix));
  m.impl("masked_mix_backward", TORCH_BOX(&masked_mix_backward));
}

}  // namespace pyreid
