// The stages of k-reciprocal re-ranking: pyreid::reciprocal_sets, pair_distances, reciprocal_weights, mean_rows,
// by_columns and re_rank_strip_. Sparse matrices are their row starts [rows + 1] int64, columns int32 and weights.
#include "csrc/cpu/k_reciprocal.h"

#include <algorithm>
#include <optional>

#include "csrc/torch/op.h"

namespace pyreid {
namespace {

void check_vector(const char* op, const Tensor& t, const char* name, ScalarType type, int64_t size) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == size && t.is_contiguous(), op, ": ", name, " must be contiguous with ",
                  size, " elements");
  STD_TORCH_CHECK(t.scalar_type() == type, op, ": ", name, " has another dtype than expected");
}

// starts [rows + 1], which may be a part of those of a larger matrix.
template <class T>
cpu::SparseRows<T> sparse_rows(const char* op, const Tensor& starts, const Tensor& columns, const Tensor* weights,
                               int64_t num_columns) {
  STD_TORCH_CHECK(starts.dim() == 1 && starts.size(0) > 0, op, ": starts must be 1-D and not empty");
  check_vector(op, starts, "starts", ScalarType::Long, starts.size(0));
  check_vector(op, columns, "columns", ScalarType::Int, columns.numel());
  if (weights) check_vector(op, *weights, "weights", weights->scalar_type(), columns.numel());
  const int64_t rows = starts.size(0) - 1;
  const int64_t* start = data<int64_t>(starts);
  STD_TORCH_CHECK(start[0] >= 0 && start[rows] <= columns.numel(), op, ": starts leave the entries");
  for (int64_t i = 0; i < rows; ++i) STD_TORCH_CHECK(start[i] <= start[i + 1], op, ": starts must ascend");
  const int32_t* column = data<int32_t>(columns);
  for (int64_t e = start[0]; e < start[rows]; ++e) {
    STD_TORCH_CHECK(column[e] >= 0 && column[e] < num_columns, op, ": entry ", e, " is in column ", column[e], " of ",
                    num_columns);
  }
  return {rows, start, column, weights ? data<T>(*weights) : nullptr};
}

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

// x [N, D] -> [entries]
Tensor pair_distances(const Tensor& x, const Tensor& starts, const Tensor& columns) {
  constexpr const char* kOp = "pair_distances";
  STD_TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.size(0) == starts.numel() - 1, kOp,
                  ": x must be 2-D, contiguous, with a row for each row of pairs");
  const Tensor distances = empty(x, {columns.numel()});
  const Launch launch(x);
  dispatch_floating(x, kOp, [&](auto zero) {
    using T = decltype(zero);
    const auto pairs = sparse_rows<T>(kOp, starts, columns, nullptr, x.size(0));
    STD_TORCH_CHECK(pairs.starts[0] == 0 && pairs.starts[pairs.rows] == columns.numel(), kOp,
                    ": starts must run from 0 to the number of entries");
    cpu::pair_distances(data<T>(x), x.size(1), pairs, mutable_data<T>(distances), launch.context());
  });
  return distances;
}

Tensor reciprocal_weights(const Tensor& distances, const Tensor& starts, const Tensor& columns) {
  constexpr const char* kOp = "reciprocal_weights";
  const Tensor weights = empty(distances, {columns.numel()});
  const Launch launch(distances);
  dispatch_floating(distances, kOp, [&](auto zero) {
    using T = decltype(zero);
    const auto rows = sparse_rows<T>(kOp, starts, columns, &distances, starts.numel() - 1);
    cpu::reciprocal_weights(rows, mutable_data<T>(weights), launch.context());
  });
  return weights;
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
    const auto rows = sparse_rows<T>(kOp, starts, columns, &weights, lists.items);
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
    const auto matrix = sparse_rows<T>(kOp, starts, columns, &weights, rows);
    const int64_t entries = matrix.starts[rows] - matrix.starts[first];
    out = {empty(weights, {rows + 1}, ScalarType::Long), empty(weights, {entries}, ScalarType::Int),
           empty(weights, {entries})};
    cpu::by_columns(matrix, first, mutable_data<int64_t>(std::get<0>(out)), mutable_data<int32_t>(std::get<1>(out)),
                    mutable_data<T>(std::get<2>(out)));
  });
  return out;
}

template <class T>
const T* vector_of(const char* op, const std::optional<Tensor>& t, const Tensor& like, const char* name, int64_t size) {
  if (!t) return nullptr;
  check_vector(op, *t, name, like.scalar_type(), size);
  return data<T>(*t);
}

// values [R, G] of the queries whose rows of the sparse matrix `starts` [R + 1] delimits. See csrc/cpu/k_reciprocal.h.
void re_rank_strip(Tensor values, const std::optional<Tensor>& offset, const std::optional<Tensor>& query_norms,
                   const std::optional<Tensor>& limits, const std::optional<Tensor>& divisors, bool squared,
                   const Tensor& starts, const Tensor& columns, const Tensor& weights, const Tensor& gallery_starts,
                   const Tensor& gallery_items, const Tensor& gallery_weights, double lambda, bool clip) {
  constexpr const char* kOp = "re_rank_strip_";
  STD_TORCH_CHECK(values.dim() == 2 && (values.size(1) <= 1 || values.stride(1) == 1), kOp,
                  ": values must be 2-D with dense rows");
  const bool products = offset.has_value();
  STD_TORCH_CHECK(
      query_norms.has_value() == products && limits.has_value() == products && divisors.has_value() == products, kOp,
      ": offset, query_norms, limits and divisors belong together");
  const int64_t rows = values.size(0), num_gallery = values.size(1);
  STD_TORCH_CHECK(starts.numel() == rows + 1, kOp, ": starts must delimit a row for each of values");
  STD_TORCH_CHECK(
      weights.scalar_type() == values.scalar_type() && gallery_weights.scalar_type() == values.scalar_type(), kOp,
      ": weights and values differ in dtype");
  const Launch launch(values);
  dispatch_floating(values, kOp, [&](auto zero) {
    using T = decltype(zero);
    const cpu::ReRankedStrip<T> strip{mutable_data<T>(values),
                                      rows,
                                      num_gallery,
                                      values.stride(0),
                                      vector_of<T>(kOp, offset, values, "offset", num_gallery),
                                      vector_of<T>(kOp, query_norms, values, "query_norms", rows),
                                      vector_of<T>(kOp, limits, values, "limits", rows),
                                      vector_of<T>(kOp, divisors, values, "divisors", rows),
                                      squared,
                                      sparse_rows<T>(kOp, starts, columns, &weights, gallery_starts.numel() - 1),
                                      sparse_rows<T>(kOp, gallery_starts, gallery_items, &gallery_weights, num_gallery),
                                      lambda,
                                      clip};
    cpu::re_rank_strip(strip, launch.context());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("reciprocal_sets(Tensor neighbors, int forward, int half) -> (Tensor, Tensor)");
  m.def("pair_distances(Tensor x, Tensor starts, Tensor columns) -> Tensor");
  m.def("reciprocal_weights(Tensor distances, Tensor starts, Tensor columns) -> Tensor");
  m.def(
      "mean_rows(Tensor starts, Tensor columns, Tensor weights, Tensor neighbors, int k2) -> (Tensor, Tensor, Tensor)");
  m.def("by_columns(Tensor starts, Tensor columns, Tensor weights, int first) -> (Tensor, Tensor, Tensor)");
  m.def(
      "re_rank_strip_(Tensor(a!) values, Tensor? offset, Tensor? query_norms, Tensor? limits, Tensor? divisors, "
      "bool squared, Tensor starts, Tensor columns, Tensor weights, Tensor gallery_starts, Tensor gallery_items, "
      "Tensor gallery_weights, float lambda_value, bool clip) -> ()");
  // csrc/ops/cuda_only/k_reciprocal.cpp: CUDA has these in place of the stages above that end in lists of any length.
  m.def("reciprocal_neighbors(Tensor neighbors, int k) -> Tensor");
  m.def("reciprocal_expansions(Tensor own, Tensor half) -> Tensor");
  m.def("run_means(Tensor values, Tensor starts, int divisor) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pyreid, CPU, m) {
  m.impl("reciprocal_sets", TORCH_BOX(&reciprocal_sets));
  m.impl("pair_distances", TORCH_BOX(&pair_distances));
  m.impl("reciprocal_weights", TORCH_BOX(&reciprocal_weights));
  m.impl("mean_rows", TORCH_BOX(&mean_rows));
  m.impl("by_columns", TORCH_BOX(&by_columns));
  m.impl("re_rank_strip_", TORCH_BOX(&re_rank_strip));
}

}  // namespace pyreid
