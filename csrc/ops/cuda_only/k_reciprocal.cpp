// The stages of k-reciprocal re-ranking on CUDA, which pyreid/ops/k_reciprocal_cuda.py puts together. The schemas are
// in csrc/ops/cpu_only/k_reciprocal.cpp. Shapes and types are checked here; indices are not, which would cost a wait
// for the device: the Python module makes them.
#include "csrc/cuda/k_reciprocal.cuh"

#include "csrc/torch/sparse.h"

namespace pyreid {
namespace {

void check_lists(const char* op, const Tensor& t, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(t.dim() == 2 && t.is_contiguous() && t.scalar_type() == ScalarType::Int, op, ": ", name,
                  " must be 2-D, contiguous and int32");
  check_devices(op, like, t);
}

// neighbors [N, K] -> [N, k]
Tensor reciprocal_neighbors(const Tensor& neighbors, int64_t k) {
  constexpr const char* kOp = "reciprocal_neighbors";
  check_lists(kOp, neighbors, neighbors, "neighbors");
  STD_TORCH_CHECK(0 < k && k <= neighbors.size(1), kOp, ": k must be from 1 to ", neighbors.size(1));
  const Tensor out = empty(neighbors, {neighbors.size(0), k});
  const Launch launch(neighbors);
  cuda::reciprocal_neighbors({data<int32_t>(neighbors), neighbors.size(0), neighbors.size(1)}, k,
                             mutable_data<int32_t>(out), launch.context());
  return out;
}

// own [N, forward], half [N, length] -> sizes [N, forward]
Tensor reciprocal_expansions(const Tensor& own, const Tensor& half) {
  constexpr const char* kOp = "reciprocal_expansions";
  check_lists(kOp, own, own, "own");
  check_lists(kOp, half, own, "half");
  STD_TORCH_CHECK(own.size(0) == half.size(0), kOp, ": own and half differ in their number of rows");
  const Tensor sizes = empty(own, {own.size(0), own.size(1)});
  const Launch launch(own);
  cuda::reciprocal_expansions(data<int32_t>(own), data<int32_t>(half), own.size(0), own.size(1), half.size(1),
                              mutable_data<int32_t>(sizes), launch.context());
  return sizes;
}

// starts [runs + 1] of values -> [runs]
Tensor run_means(const Tensor& values, const Tensor& starts, int64_t divisor) {
  constexpr const char* kOp = "run_means";
  check_vector(kOp, values, values, "values", values.scalar_type(), values.numel());
  STD_TORCH_CHECK(starts.dim() == 1 && starts.size(0) > 0, kOp, ": starts must be 1-D and not empty");
  check_vector(kOp, starts, values, "starts", ScalarType::Long, starts.size(0));
  const Tensor means = empty(values, {starts.size(0) - 1});
  const Launch launch(values);
  dispatch_floating(values, kOp, [&](auto zero) {
    using T = decltype(zero);
    cuda::run_means(data<T>(values), data<int64_t>(starts), means.size(0), static_cast<T>(divisor),
                    mutable_data<T>(means), launch.context());
  });
  return means;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyreid, CUDA, m) {
  m.impl("reciprocal_neighbors", TORCH_BOX(&reciprocal_neighbors));
  m.impl("reciprocal_expansions", TORCH_BOX(&reciprocal_expansions));
  m.impl("run_means", TORCH_BOX(&run_means));
}

}  // namespace pyreid
