// pyreid::batch_hard_triplet: each anchor against its farthest positive and its nearest negative.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/batch_hard_triplet.cuh"
#else
#include "csrc/cpu/batch_hard_triplet.h"
#include "csrc/cpu/self_distances.h"
#endif
#include "csrc/torch/op.h"
#include "csrc/torch/triplet.h"

namespace pyreid {
namespace {

// x [B, D], labels [B] -> loss [] or [B]; pairs int32 [2, B], the hardest positive and negative, -1 where an anchor has
// none or only one of both; slopes [2, B], the derivative of the reduced loss by those distances over the distances.
std::tuple<Tensor, Tensor, Tensor> batch_hard_triplet(const Tensor& x_in, const Tensor& labels_in,
                                                      std::optional<double> margin, const std::string& reduction_name) {
  check_triplet_inputs(x_in, labels_in);
  const Reduction reduction = parse_reduction(reduction_name);
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in), labels = torch::stable::contiguous(labels_in);
  const int64_t b = x.size(0), d = x.size(1);
  const Tensor losses = empty(x, {b});
  const Tensor loss = reduction == Reduction::kNone ? losses : empty(x, {});
  const Tensor pairs = empty(x, {2, b}, ScalarType::Int), slopes = empty(x, {2, b});
  dispatch_floating(x, "batch_hard_triplet", [&](auto zero) {
    using T = decltype(zero);
#ifdef PYREID_CUDA_BACKEND
    const bool clusters = backend::hard_triplet_clusters<T>();
    const int64_t needed = backend::hard_triplet_scratch(b, d, clusters);
    const Tensor scratch = needed > 0 ? empty(x, {needed}) : losses;  // not touched where none is needed
    // How these products are rounded, also as TF32, does not matter: what they decide is certain or is summed again.
    const bool large = b > backend::kSmallBatch;
    const Tensor products = large ? product(x, torch::stable::transpose(x, 0, 1)) : x;
    backend::batch_hard_triplet(data<T>(x), data<T>(products), data<int64_t>(labels), b, d, clusters,
                                make_margin(margin), reduction, mutable_data<T>(scratch), mutable_data<T>(losses),
                                mutable_data<T>(loss), mutable_data<int32_t>(pairs), mutable_data<T>(slopes),
                                launch.context());
#else
    const Tensor squared = empty(x, {b, b});
    backend::squared_self_distances(data<T>(x), b, d, mutable_data<T>(squared), launch.context());
    backend::batch_hard_triplet(data<T>(squared), data<int64_t>(labels), b, make_margin(margin), reduction,
                                mutable_data<T>(losses), mutable_data<T>(loss), mutable_data<int32_t>(pairs),
                                mutable_data<T>(slopes), launch.context());
#endif
  });
  return {loss, pairs, slopes};
}

// grad [] or [B], x [B, D], pairs and slopes of the forward -> dx [B, D]
Tensor batch_hard_triplet_backward(const Tensor& grad_in, const Tensor& x_in, const Tensor& pairs_in,
                                   const Tensor& slopes_in) {
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in), grad = torch::stable::contiguous(grad_in);
  const Tensor pairs = torch::stable::contiguous(pairs_in), slopes = torch::stable::contiguous(slopes_in);
  const int64_t b = x.size(0), d = x.size(1);
  check_triplet_gradient("batch_hard_triplet_backward", grad, b);
  check_devices("batch_hard_triplet_backward", x, grad, pairs, slopes);
  STD_TORCH_CHECK(pairs.numel() == 2 * b && slopes.numel() == 2 * b && pairs.scalar_type() == ScalarType::Int,
                  "batch_hard_triplet_backward: pairs and slopes must come from the forward");
  STD_TORCH_CHECK(grad.scalar_type() == x.scalar_type() && slopes.scalar_type() == x.scalar_type(),
                  "batch_hard_triplet_backward: dtypes differ");
  const Tensor dx = empty(x, {b, d});
  dispatch_floating(x, "batch_hard_triplet", [&](auto zero) {
    using T = decltype(zero);
    backend::batch_hard_triplet_backward(data<T>(grad), grad.dim() == 1, data<T>(x), data<int32_t>(pairs),
                                         data<T>(slopes), b, d, mutable_data<T>(dx), launch.context());
  });
  return dx;
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def(
      "batch_hard_triplet(Tensor embeddings, Tensor labels, float? margin, str reduction) -> (Tensor, Tensor, Tensor)");
  m.def("batch_hard_triplet_backward(Tensor grad, Tensor embeddings, Tensor pairs, Tensor slopes) -> Tensor");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl("batch_hard_triplet", TORCH_BOX(&batch_hard_triplet));
  m.impl("batch_hard_triplet_backward", TORCH_BOX(&batch_hard_triplet_backward));
}

}  // namespace pyreid
