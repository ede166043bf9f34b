// pyreid::gate_and_pool: relu(sigmoid(gate) x) and its global average and maximum, what surrounds the convolutions of a
// spatial gate.
#ifdef PYREID_CUDA_BACKEND
#include "csrc/cuda/gate_and_pool.cuh"
#else
#include "csrc/cpu/gate_and_pool.h"
#endif
#include <optional>

#include "csrc/torch/op.h"

namespace pyreid {
namespace {

struct Rows {
  int64_t samples, channels, positions;
  int64_t count() const { return samples * channels; }
};

bool alike(const Tensor& a, const Tensor& b) {
  bool same = a.scalar_type() == b.scalar_type() && a.dim() == b.dim();
  for (int64_t d = 0; same && d < a.dim(); ++d) same = a.size(d) == b.size(d);
  return same;
}

Rows check_inputs(const Tensor& x, const Tensor& gate) {
  STD_TORCH_CHECK(x.dim() == 3 || x.dim() == 4, "gate_and_pool: x must be (N, C, L) or (N, C, H, W)");
  STD_TORCH_CHECK(alike(x, gate), "gate_and_pool: gate must have the shape and dtype of x");
  check_devices("gate_and_pool", x, gate);
  const Rows rows{x.size(0), x.size(1), x.dim() == 3 ? x.size(2) : x.size(2) * x.size(3)};
  STD_TORCH_CHECK(rows.positions > 0, "gate_and_pool: x has no positions to pool over");
  return rows;
}

Tensor empty_map(const Tensor& x, bool wanted = true) {
  if (!wanted) return empty(x, {0});
  return x.dim() == 3 ? empty(x, {x.size(0), x.size(1), x.size(2)})
                      : empty(x, {x.size(0), x.size(1), x.size(2), x.size(3)});
}

// x and gate (N, C, L) or (N, C, H, W), alike -> local like x; its average and maximum (N, C); and the first place of
// the maximum in each row (N, C), int64
std::tuple<Tensor, Tensor, Tensor, Tensor> gate_and_pool(const Tensor& x_in, const Tensor& gate_in) {
  const Rows rows = check_inputs(x_in, gate_in);
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in), gate = torch::stable::contiguous(gate_in);
  const Tensor local = empty_map(x);
  const Tensor avg = empty(x, {rows.samples, rows.channels}), largest = empty(x, {rows.samples, rows.channels});
  const Tensor index = empty(x, {rows.samples, rows.channels}, ScalarType::Long);
  if (rows.count() == 0) return {local, avg, largest, index};
  dispatch_floating_and_half(x, "gate_and_pool", [&](auto zero) {
    using S = decltype(zero);
    backend::gate_and_pool<S>(data<S>(x), data<S>(gate), rows.count(), rows.positions, mutable_data<S>(local),
                              mutable_data<S>(avg), mutable_data<S>(largest), mutable_data<int64_t>(index),
                              launch.context());
  });
  return {local, avg, largest, index};
}

// The gradients of the three results, none of them if they are missing -> those of x and gate, empty if not wanted
std::tuple<Tensor, Tensor> gate_and_pool_backward(const std::optional<Tensor>& dlocal_in,
                                                  const std::optional<Tensor>& davg_in,
                                                  const std::optional<Tensor>& dlargest_in, const Tensor& x_in,
                                                  const Tensor& gate_in, const Tensor& index_in, bool for_x,
                                                  bool for_gate) {
  const Rows rows = check_inputs(x_in, gate_in);
  const Launch launch(x_in);
  const Tensor x = torch::stable::contiguous(x_in), gate = torch::stable::contiguous(gate_in);
  const Tensor index = torch::stable::contiguous(index_in);
  STD_TORCH_CHECK(index.scalar_type() == ScalarType::Long && index.numel() == rows.count(),
                  "gate_and_pool: index must be (N, C), int64");
  check_devices("gate_and_pool", x, index, dlocal_in, davg_in, dlargest_in);
  STD_TORCH_CHECK(!dlocal_in.has_value() || alike(x, *dlocal_in), "gate_and_pool: the gradient of local is not like x");
  const auto pooled_gradient = [&](const std::optional<Tensor>& grad) -> std::optional<Tensor> {
    if (!grad.has_value()) return std::nullopt;
    STD_TORCH_CHECK(grad->scalar_type() == x.scalar_type() && grad->numel() == rows.count(),
                    "gate_and_pool: the gradients of the pools must be (N, C) in the dtype of x");
    return torch::stable::contiguous(*grad);
  };
  const std::optional<Tensor> davg = pooled_gradient(davg_in), dlargest = pooled_gradient(dlargest_in);
  std::optional<Tensor> dlocal;
  if (dlocal_in.has_value()) dlocal = torch::stable::contiguous(*dlocal_in);
  const Tensor dx = empty_map(x, for_x), dgate = empty_map(x, for_gate);
  if (rows.count() == 0) return {dx, dgate};
  dispatch_floating_and_half(x, "gate_and_pool", [&](auto zero) {
    using S = decltype(zero);
    const auto given = [](const std::optional<Tensor>& t) { return t.has_value() ? data<S>(*t) : nullptr; };
    backend::gate_and_pool_gradient<S>(given(dlocal), given(davg), given(dlargest), data<S>(x), data<S>(gate),
                                       data<int64_t>(index), rows.count(), rows.positions,
                                       for_x ? mutable_data<S>(dx) : nullptr,
                                       for_gate ? mutable_data<S>(dgate) : nullptr, launch.context());
  });
  return {dx, dgate};
}

}  // namespace

#ifndef PYREID_CUDA_BACKEND
STABLE_TORCH_LIBRARY_FRAGMENT(pyreid, m) {
  m.def("gate_and_pool(Tensor x, Tensor gate) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "gate_and_pool_backward(Tensor? dlocal, Tensor? davg, Tensor? dlargest, Tensor x, Tensor gate, Tensor index,"
      " bool for_x, bool for_gate) -> (Tensor, Tensor)");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(pyreid, PYREID_BACKEND_KEY, m) {
  m.impl("gate_and_pool", TORCH_BOX(&gate_and_pool));
  m.impl("gate_and_pool_backward", TORCH_BOX(&gate_and_pool_backward));
}

}  // namespace pyreid
