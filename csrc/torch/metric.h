#pragma once
#include <string>

#include "csrc/metric.h"
#include "csrc/torch/op.h"

namespace pyreid {

inline Metric parse_metric(const std::string& name) {
  if (name == "euclidean") return Metric::kEuclidean;
  if (name == "sqeuclidean") return Metric::kSquaredEuclidean;
  STD_TORCH_CHECK(name == "cosine", "metric: expected 'euclidean', 'sqeuclidean' or 'cosine', got '", name, "'");
  return Metric::kCosine;
}

}  // namespace pyreid
