// pyreid::batch_soft_triplet: each anchor against softmax-weighted means of its distances to positives and negatives.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/batch_soft_triplet.cuh"
#else
#include "csrc/cpu/batch_soft_triplet.h"
#include "csrc/cpu/self_distances.h"
#endif
#include "csrc/torch/op.h"
#include "csrc/torch/triplet.h"

namespace pyreid {
namespace {

// x [B, D], labels [B] -> loss [] or [B]; weights [B, B], the derivative of anchor i's difference of weighted means by
// its distance to j, over that distance; slopes [B], the derivative of the reduced loss by anchor i's difference.
std::tuple<Tensor, Tensor, Tensor> batch_soft_triplet(const Tensor& x_in, const Tensor& labels_in,
                                                      std::optional<double> margin, const std::string& reduction_name) {
  check_triplet_inputs(x_in, labels_in);
  const Reduction reduction = parse_reduction(reduction_name);
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in), labels = torch::stable::contiguous(labels_in);
  const int64_t b = x.size(0), d = x.size(1);
  const Tensor losses = empty(x, {b});
  const Tensor loss = reduction == Reduction::kNone ? losses : empty(x, {});
  const Tensor weights = empty(x, {b, b}), slopes = empty(x, {b});
  dispatch_floating(x, "batch_soft_triplet", [&](auto zero) {
    using T = decltype(zero);
#ifdef PYREID_CUDA_BACKEND
    const bool clusters = backend::soft_triplet_clusters<T>();
    const int64_t needed = backend::soft_triplet_scratch(b, d, clusters);
    const Tensor scratch = needed > 0 ? empty(x, {needed}) : losses;  // not touched where none is needed
    backend::batch_soft_triplet(data<T>(x), data<int64_t>(labels), b, d, clusters, make_margin(margin), reduction,
                                mutable_data<T>(scratch), mutable_data<T>(losses), mutable_data<T>(loss),
                                mutable_data<T>(weights), mutable_data<T>(slopes), launch.context());
#else
    const Tensor squared = empty(x, {b, b});
    backend::squared_self_distances(data<T>(x), b, d, mutable_data<T>(squared), launch.context());
    backend::batch_soft_triplet(mutable_data<T>(squared), data<int64_t>(labels), b, make_margin(margin),
                                reduction, mutable_data<T>(losses), mutable_data<T>(loss), mutable_data<T>(weights),
                                mutable_data<T>(slopes), launch.context());
#endif
  });
  return {loss, weights, slopes};
}

// grad [] or [B], x [B, D], weights and slopes of the forward -> dx [B, D]
Tensor batch_soft_triplet_backward(const Tensor& grad_in, const Tensor& x_in, const Tensor& weights_in,
                                   const Tensor& slopes_in) {
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in), grad = torch::stable::contiguous(grad_in);
  const Tensor weights = torch::stable::contiguous(weights_in), slopes = torch::stable::contiguous(slopes_in);
  const int64_t b = x.size(0), d = x.size(1);
  check_triplet_gradient("batch_soft_triplet_backward", grad, b);
  check_devices("batch_soft_triplet_backward", x, grad, weights, slopes);
  STD_TORCH_CHECK(weights.numel() == b * b && slopes.numel() == b,
                  "batch_soft_triplet_backward: weights and slopes must come from the forward");
  STD_TORCH_CHECK(grad.scalar_type() == x.scalar_type() && weights.scalar_type() == x.scalar_type() &&
                      slopes.scalar_type() == x.scalar_type(),
                  "batch_soft_triplet_backward: dtypes differ");
  const Tensor dx = empty(x, {b, d});
  dispatch_floating(x, "batch_soft_triplet", [&](auto zero) {
    using T = decltype(zero);
    backend::batch_soft_triplet_backward(data<T>(grad), grad.dim() == 1, data<T>(x), data<T>(weights), data<T>(slopes),
                                         b, d, mutable_data<T>(dx), launch.context());
  });
  return dx;
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def(
      "batch_soft_triplet(Tensor embeddings, Tensor labels, float? margin, str reduction) -> (Tensor, Tensor, Tensor)");
  m.def("batch_soft_triplet_backward(Tensor grad, Tensor embeddings, Tensor weights, Tensor slopes) -> Tensor");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl("batch_soft_triplet", TORCH_BOX(&batch_soft_triplet));
  m.impl("batch_soft_triplet_backward", TORCH_BOX(&batch_soft_triplet_backward));
}

}  // namespace pyreid
