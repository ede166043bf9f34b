// Arguments that the triplet operators share.
#pragma once
#include <optional>
#include <string>

#include "csrc/torch/op.h"
#include "csrc/triplet.h"

namespace pyreid {

inline Reduction parse_reduction(const std::string& name) {
  if (name == "mean") return Reduction::kMean;
  if (name == "sum") return Reduction::kSum;
  STD_TORCH_CHECK(name == "none", "reduction: expected 'mean', 'sum' or 'none', got '", name, "'");
  return Reduction::kNone;
}

inline Margin make_margin(std::optional<double> margin) { return {!margin.has_value(), margin.value_or(0.0)}; }

inline void check_triplet_inputs(const Tensor& x, const Tensor& labels) {
  STD_TORCH_CHECK(x.dim() == 2, "embeddings: must be 2-D");
  STD_TORCH_CHECK(labels.dim() == 1 && labels.size(0) == x.size(0), "labels: expected one for each embedding");
  STD_TORCH_CHECK(labels.scalar_type() == ScalarType::Long, "labels: must be int64");
  STD_TORCH_CHECK(x.size(0) <= INT32_MAX, "embeddings: too many rows");
  check_devices("triplet loss", x, labels);
}

// grad must be a scalar, or hold one value for each of the b embeddings.
inline void check_triplet_gradient(const char* op, const Tensor& grad, int64_t b) {
  STD_TORCH_CHECK(grad.dim() == 0 || (grad.dim() == 1 && grad.size(0) == b), op, ": grad does not fit embeddings");
}

}  // namespace pyreid
