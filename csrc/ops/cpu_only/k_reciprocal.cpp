// The stages of k-reciprocal re-ranking on the CPU that end in lists of any length: pyreid::reciprocal_sets, mean_rows
// and by_columns. The others are in csrc/ops/k_reciprocal.cpp.
#include "csrc/cpu/k_reciprocal.h"

#include <algorithm>

#include "csrc/torch/sparse.h"

namespace pyreid {
namespace {

cpu::Neighbors as_neighbors(const char* op, const Tensor& t) {
  STD_TORCH_CHECK(t.dim() == 2 && t.is_contiguous() && t.scalar_type() == ScalarType::Int, op,
                  ": neighbors must be 2-D, contiguous and int32");
  const int32_t* index = data<int32_t>(t);
  for (int64_t i = 0; i < t.numel(); ++i) {
    STD_TORCH_CHECK(index[i] >= 0 && index[i] < t.size(0), op, ": neighbor ", index[i], " of ", t.size(0), " items");
  }
  return {index, t.size(0), t.size(1)};
}

template <class V>
Tensor as_tensor(const Tensor& like, const std::vector<V>& values, ScalarType type) {
  const Tensor t = empty(like, {static_cast<int64_t>(values.size())}, type);
  std::copy(values.begin(), values.end(), mutable_data<V>(t));
  return t;
}

// neighbors [N, K] -> starts [N + 1], columns
std::tuple<Tensor, Tensor> reciprocal_sets(const Tensor& neighbors, int64_t forward, int64_t half) {
  const cpu::Neighbors lists = as_neighbors("reciprocal_sets", neighbors);
  STD_TORCH_CHECK(0 < forward && forward <= lists.k && 0 < half && half <= lists.k,
                  "reciprocal_sets: forward and half must be from 1 to ", lists.k);
  const Launch launch(neighbors);
  const auto sets = cpu::reciprocal_sets(lists, forward, half, launch.context());
  return {as_tensor(neighbors, sets.starts, ScalarType::Long), as_tensor(neighbors, sets.columns, ScalarType::Int)};
}

std::tuple<Tensor, Tensor, Tensor> mean_rows(const Tensor& starts, const Tensor& columns, const Tensor& weights,
                                             const Tensor& neighbors, int64_t k2) {
  constexpr const char* kOp = "mean_rows";
  const cpu::Neighbors lists = as_neighbors(kOp, neighbors);
  STD_TORCH_CHECK(0 < k2 && k2 <= lists.k, kOp, ": k2 must be from 1 to ", lists.k);
  STD_TORCH_CHECK(lists.items == starts.numel() - 1, kOp, ": neighbors and starts differ in their number of rows");
  const Launch launch(weights);
  std::tuple<Tensor, Tensor, Tensor> out{starts, columns, weights};
  dispatch_floating(weights, kOp, [&](auto zero) {
    using T = decltype(zero);
    const auto rows = sparse_rows<T>(kOp, weights, starts, columns, &weights, lists.items);
    const auto means = cpu::mean_rows(rows, lists, k2, launch.context());
    out = {as_tensor(weights, means.starts, ScalarType::Long), as_tensor(weights, means.columns, ScalarType::Int),
           as_tensor(weights, means.weights, weights.scalar_type())};
  });
  return out;
}

// The rows from `first` on by columns -> starts [rows + 1], items, weights
std::tuple<Tensor, Tensor, Tensor> by_columns(const Tensor& starts, const Tensor& columns, const Tensor& weights,
                                              int64_t first) {
  constexpr const char* kOp = "by_columns";
  const int64_t rows = starts.numel() - 1;
  STD_TORCH_CHECK(0 <= first && first <= rows, kOp, ": first must be from 0 to ", rows);
  std::tuple<Tensor, Tensor, Tensor> out{starts, columns, weights};
  dispatch_floating(weights, kOp, [&](auto zero) {
    using T = decltype(zero);
    const auto matrix = sparse_rows<T>(kOp, weights, starts, columns, &weights, rows);
    const int64_t entries = matrix.starts[rows] - matrix.starts[first];
    out = {empty(weights, {rows + 1}, ScalarType::Long), empty(weights, {entries}, ScalarType::Int),
           empty(weights, {entries})};
    cpu::by_columns(matrix, first, mutable_data<int64_t>(std::get<0>(out)), mutable_data<int32_t>(std::get<1>(out)),
                    mutable_data<T>(std::get<2>(out)));
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("reciprocal_sets(Tensor neighbors, int forward, int half) -> (Tensor, Tensor)");
  m.def(
      "mean_rows(Tensor starts, Tensor columns, Tensor weights, Tensor neighbors, int k2) -> (Tensor, Tensor, Tensor)");
  m.def("by_columns(Tensor starts, Tensor columns, Tensor weights, int first) -> (Tensor, Tensor, Tensor)");
  // csrc/ops/cuda_only/k_reciprocal.cpp: CUDA has these in place of the stages above that end in lists of any length.
  m.def("reciprocal_neighbors(Tensor neighbors, int k) -> Tensor");
  m.def("reciprocal_expansions(Tensor own, Tensor half) -> Tensor");
  m.def("run_means(Tensor values, Tensor starts, int divisor) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pyreid, CPU, m) {
  m.impl("reciprocal_sets", TORCH_BOX(&reciprocal_sets));
  m.impl("mean_rows", TORCH_BOX(&mean_rows));
  m.impl("by_columns", TORCH_BOX(&by_columns));
}

}  // namespace pyreid
