// pyreid::squared_norms: squared lengths of the rows of a matrix, in one pass and without an intermediate matrix.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/pairwise_distance.cuh"
#else
#include "csrc/cpu/pairwise_distance.h"
#endif
#include "csrc/torch/op.h"

namespace pyreid {
namespace {

// x [N, D] -> [N]
Tensor squared_norms(const Tensor& x_in) {
  STD_TORCH_CHECK(x_in.dim() == 2, "squared_norms: x must be 2-D");
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in);
  const Tensor norms = empty(x, {x.size(0)});
  dispatch_floating(x, "squared_norms", [&](auto zero) {
    using T = decltype(zero);
    backend::squared_norms(data<T>(x), x.size(0), x.size(1), mutable_data<T>(norms), launch.context());
  });
  return norms;
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) { m.def("squared_norms(Tensor x) -> Tensor"); }
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) { m.impl("squared_norms", TORCH_BOX(&squared_norms)); }

}  // namespace pyreid
