// The stages of k-reciprocal re-ranking on CUDA, which pyreid/ops/k_reciprocal_cuda.py puts together. The schemas are
// in csrc/ops/cpu_only/k_reciprocal.cpp. Shapes and types are checked here; indices are not, which would cost a wait
// for the device: the Python module makes them.
#include "csrc/cuda/k_reciprocal.cuh"

#include <algorithm>
#include <optional>

#include "csrc/torch/op.h"

namespace pyreid {
namespace {

// Of scratch: enough blocks to fill the device, unless the gallery is so large that a few of them fill it.
constexpr int64_t kScratchBytes = int64_t{256} << 20;
constexpr int64_t kMostBlocks = 1024;
constexpr int64_t kLeastBlocks = 32;

void check_vector(const char* op, const Tensor& t, const Tensor& like, const char* name, ScalarType type,
                  int64_t size) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == size && t.is_contiguous(), op, ": ", name, " must be contiguous with ",
                  size, " elements");
  STD_TORCH_CHECK(t.scalar_type() == type, op, ": ", name, " has another dtype than expected");
  check_devices(op, like, t);
}

void check_lists(const char* op, const Tensor& t, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(t.dim() == 2 && t.is_contiguous() && t.scalar_type() == ScalarType::Int, op, ": ", name,
                  " must be 2-D, contiguous and int32");
  check_devices(op, like, t);
}

template <class T>
SparseRows<T> sparse_rows(const char* op, const Tensor& like, const Tensor& starts, const Tensor& columns,
                          const Tensor* weights) {
  STD_TORCH_CHECK(starts.dim() == 1 && starts.size(0) > 0, op, ": starts must be 1-D and not empty");
  check_vector(op, starts, like, "starts", ScalarType::Long, starts.size(0));
  check_vector(op, columns, like, "columns", ScalarType::Int, columns.numel());
  if (weights) check_vector(op, *weights, like, "weights", like.scalar_type(), columns.numel());
  return {starts.size(0) - 1, data<int64_t>(starts), data<int32_t>(columns), weights ? data<T>(*weights) : nullptr};
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

// x [N, D] -> [entries]
Tensor pair_distances(const Tensor& x, const Tensor& starts, const Tensor& columns) {
  constexpr const char* kOp = "pair_distances";
  STD_TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.size(0) == starts.numel() - 1, kOp,
                  ": x must be 2-D, contiguous, with a row for each row of pairs");
  const Tensor distances = empty(x, {columns.numel()});
  const Launch launch(x);
  dispatch_floating(x, kOp, [&](auto zero) {
    using T = decltype(zero);
    cuda::pair_distances(data<T>(x), x.size(1), sparse_rows<T>(kOp, x, starts, columns, nullptr),
                         mutable_data<T>(distances), launch.context());
  });
  return distances;
}

Tensor reciprocal_weights(const Tensor& distances, const Tensor& starts, const Tensor& columns) {
  constexpr const char* kOp = "reciprocal_weights";
  const Tensor weights = empty(distances, {columns.numel()});
  const Launch launch(distances);
  dispatch_floating(distances, kOp, [&](auto zero) {
    using T = decltype(zero);
    cuda::reciprocal_weights(sparse_rows<T>(kOp, distances, starts, columns, &distances), mutable_data<T>(weights),
                             launch.context());
  });
  return weights;
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

template <class T>
const T* vector_of(const char* op, const std::optional<Tensor>& t, const Tensor& like, const char* name, int64_t size) {
  if (!t) return nullptr;
  check_vector(op, *t, like, name, like.scalar_type(), size);
  return data<T>(*t);
}

// values [R, G] of the queries whose rows of the sparse matrix `starts` [R + 1] delimits. See csrc/k_reciprocal.h.
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
  const Launch launch(values);
  dispatch_floating(values, kOp, [&](auto zero) {
    using T = decltype(zero);
    const ReRankedStrip<T> strip{mutable_data<T>(values),
                                 rows,
                                 num_gallery,
                                 values.stride(0),
                                 vector_of<T>(kOp, offset, values, "offset", num_gallery),
                                 vector_of<T>(kOp, query_norms, values, "query_norms", rows),
                                 vector_of<T>(kOp, limits, values, "limits", rows),
                                 vector_of<T>(kOp, divisors, values, "divisors", rows),
                                 squared,
                                 sparse_rows<T>(kOp, values, starts, columns, &weights),
                                 sparse_rows<T>(kOp, values, gallery_starts, gallery_items, &gallery_weights),
                                 lambda,
                                 clip};
    const int64_t row_bytes = std::max<int64_t>(1, num_gallery) * static_cast<int64_t>(sizeof(T));
    const int64_t affordable = std::clamp(kScratchBytes / row_bytes, kLeastBlocks, kMostBlocks);
    const int64_t blocks = std::max<int64_t>(1, std::min(rows, affordable));
    const Tensor overlaps = empty(values, {blocks, num_gallery});
    cuda::re_rank_strip(strip, mutable_data<T>(overlaps), blocks, launch.context());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyreid, CUDA, m) {
  m.impl("reciprocal_neighbors", TORCH_BOX(&reciprocal_neighbors));
  m.impl("reciprocal_expansions", TORCH_BOX(&reciprocal_expansions));
  m.impl("pair_distances", TORCH_BOX(&pair_distances));
  m.impl("reciprocal_weights", TORCH_BOX(&reciprocal_weights));
  m.impl("run_means", TORCH_BOX(&run_means));
  m.impl("re_rank_strip_", TORCH_BOX(&re_rank_strip));
}

}  // namespace pyreid
