// pyreid::pair_products: inner products of chosen pairs of rows, in float64.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/pair_products.cuh"
#else
#include "csrc/cpu/pair_products.h"
#endif
#include "csrc/torch/op.h"

namespace pyreid {
namespace {

constexpr const char* kOp = "pair_products";

const int64_t* indices(const Tensor& t, const Tensor& x, const char* name) {
  STD_TORCH_CHECK(t.dim() == 1 && t.is_contiguous() && t.scalar_type() == ScalarType::Long, kOp, ": ", name,
                  " must be contiguous, 1-D and int64");
  STD_TORCH_CHECK(on_device_of(x, t), kOp, ": ", name, " is on another device than x");
  return data<int64_t>(t);
}

#ifndef PYREID_CUDA_BACKEND
// On CUDA this would cost a synchronisation; the callers make the indices.
void check_indices(const int64_t* values, int64_t count, int64_t size, const char* name) {
  for (int64_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(values[i] >= 0 && values[i] < size, kOp, ": ", name, " holds ", values[i], ", but there are ", size,
                    " rows");
  }
}
#endif

// x [., D], y [., D], rows [P] of x, items [P] of y -> float64 [P]
Tensor pair_products(const Tensor& x, const Tensor& y, const Tensor& rows, const Tensor& items) {
  STD_TORCH_CHECK(x.dim() == 2 && y.dim() == 2 && x.size(1) == y.size(1), kOp,
                  ": x and y must be 2-D and equally wide");
  STD_TORCH_CHECK(x.is_contiguous() && y.is_contiguous() && x.scalar_type() == y.scalar_type(), kOp,
                  ": x and y must be contiguous and of one dtype");
  STD_TORCH_CHECK(on_device_of(x, y), kOp, ": y is on another device than x");
  const Launch launch(x);
  const int64_t* row_data = indices(rows, x, "rows");
  const int64_t* item_data = indices(items, x, "items");
  const int64_t pairs = rows.size(0);
  STD_TORCH_CHECK(items.size(0) == pairs, kOp, ": rows and items differ in length");
#ifndef PYREID_CUDA_BACKEND
  check_indices(row_data, pairs, x.size(0), "rows");
  check_indices(item_data, pairs, y.size(0), "items");
#endif
  const Tensor products = empty(x, {pairs}, ScalarType::Double);
  dispatch_floating(x, kOp, [&](auto zero) {
    using T = decltype(zero);
    const PairTask<T> task{data<T>(x), data<T>(y), x.size(1), row_data, item_data, pairs};
    backend::pair_products(task, mutable_data<double>(products), launch.context());
  });
  return products;
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("pair_products(Tensor x, Tensor y, Tensor rows, Tensor items) -> Tensor");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) { m.impl("pair_products", TORCH_BOX(&pair_products)); }

}  // namespace pyreid
