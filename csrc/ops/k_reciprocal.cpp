// The stages of k-reciprocal re-ranking that both backends have: pyreid::pair_distances, reciprocal_weights and
// re_rank_strip_. The others are in csrc/ops/cpu_only and csrc/ops/cuda_only, where they are cut in different ways.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/k_reciprocal.cuh"
#else
#include "csrc/cpu/k_reciprocal.h"
#endif
#include <algorithm>
#include <optional>

#include "csrc/torch/sparse.h"

namespace pyreid {
namespace {

#ifdef PYREID_CUDA_BACKEND
// Of scratch: enough blocks to fill the device, unless the gallery is so large that a few of them fill it.
constexpr int64_t kScratchBytes = int64_t{256} << 20;
constexpr int64_t kMostBlocks = 1024;
constexpr int64_t kLeastBlocks = 32;
#endif

// x [N, D] -> [entries]
Tensor pair_distances(const Tensor& x, const Tensor& starts, const Tensor& columns) {
  constexpr const char* kOp = "pair_distances";
  STD_TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.size(0) == starts.numel() - 1, kOp,
                  ": x must be 2-D, contiguous, with a row for each row of pairs");
  const Tensor distances = empty(x, {columns.numel()});
  const Launch launch(x);
  dispatch_floating(x, kOp, [&](auto zero) {
    using T = decltype(zero);
    const auto pairs = sparse_rows<T>(kOp, x, starts, columns, nullptr, x.size(0));
#ifndef PYREID_CUDA_BACKEND
    STD_TORCH_CHECK(pairs.starts[0] == 0 && pairs.starts[pairs.rows] == columns.numel(), kOp,
                    ": starts must run from 0 to the number of entries");
#endif
    backend::pair_distances(data<T>(x), x.size(1), pairs, mutable_data<T>(distances), launch.context());
  });
  return distances;
}

Tensor reciprocal_weights(const Tensor& distances, const Tensor& starts, const Tensor& columns) {
  constexpr const char* kOp = "reciprocal_weights";
  const Tensor weights = empty(distances, {columns.numel()});
  const Launch launch(distances);
  dispatch_floating(distances, kOp, [&](auto zero) {
    using T = decltype(zero);
    const auto rows = sparse_rows<T>(kOp, distances, starts, columns, &distances, starts.numel() - 1);
    backend::reciprocal_weights(rows, mutable_data<T>(weights), launch.context());
  });
  return weights;
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
    const ReRankedStrip<T> strip{
        mutable_data<T>(values),
        rows,
        num_gallery,
        values.stride(0),
        vector_of<T>(kOp, offset, values, "offset", num_gallery),
        vector_of<T>(kOp, query_norms, values, "query_norms", rows),
        vector_of<T>(kOp, limits, values, "limits", rows),
        vector_of<T>(kOp, divisors, values, "divisors", rows),
        squared,
        sparse_rows<T>(kOp, values, starts, columns, &weights, gallery_starts.numel() - 1),
        sparse_rows<T>(kOp, values, gallery_starts, gallery_items, &gallery_weights, num_gallery),
        lambda,
        clip};
#ifdef PYREID_CUDA_BACKEND
    const int64_t row_bytes = std::max<int64_t>(1, num_gallery) * static_cast<int64_t>(sizeof(T));
    const int64_t affordable = std::clamp(kScratchBytes / row_bytes, kLeastBlocks, kMostBlocks);
    const int64_t blocks = std::max<int64_t>(1, std::min(rows, affordable));
    const Tensor overlaps = empty(values, {blocks, num_gallery});
    backend::re_rank_strip(strip, mutable_data<T>(overlaps), blocks, launch.context());
#else
    backend::re_rank_strip(strip, launch.context());
#endif
  });
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("pair_distances(Tensor x, Tensor starts, Tensor columns) -> Tensor");
  m.def("reciprocal_weights(Tensor distances, Tensor starts, Tensor columns) -> Tensor");
  m.def(
      "re_rank_strip_(Tensor(a!) values, Tensor? offset, Tensor? query_norms, Tensor? limits, Tensor? divisors, "
      "bool squared, Tensor starts, Tensor columns, Tensor weights, Tensor gallery_starts, Tensor gallery_items, "
      "Tensor gallery_weights, float lambda_value, bool clip) -> ()");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl("pair_distances", TORCH_BOX(&pair_distances));
  m.impl("reciprocal_weights", TORCH_BOX(&reciprocal_weights));
  m.impl("re_rank_strip_", TORCH_BOX(&re_rank_strip));
}

}  // namespace pyreid
