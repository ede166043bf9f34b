// pyreid::row_hashes: a 64-bit hash of every row of a matrix, to find rows that are equal.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/row_hashes.cuh"
#else
#include "csrc/cpu/row_hashes.h"
#endif
#include "csrc/torch/op.h"

namespace pyreid {
namespace {

// x [N, D] of any type of 2, 4 or 8 bytes -> int64 [N]
Tensor row_hashes(const Tensor& x_in) {
  STD_TORCH_CHECK(x_in.dim() == 2, "row_hashes: x must be 2-D");
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in);
  const Tensor hashes = empty(x, {x.size(0)}, ScalarType::Long);
  const auto run = [&](auto zero) {
    using Word = decltype(zero);
    backend::row_hashes(data<Word>(x), x.size(0), x.size(1), mutable_data<int64_t>(hashes), launch.context());
  };
  switch (x.element_size()) {
    case 2:
      run(uint16_t{});
      break;
    case 4:
      run(uint32_t{});
      break;
    case 8:
      run(uint64_t{});
      break;
    default:
      STD_TORCH_CHECK(false, "row_hashes: expected elements of 2, 4 or 8 bytes, got ", x.element_size());
  }
  return hashes;
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) { m.def("row_hashes(Tensor x) -> Tensor"); }
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) { m.impl("row_hashes", TORCH_BOX(&row_hashes)); }

}  // namespace pyreid
