#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cpp_tests/problems/spatial_gate.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/spatial_gate.cuh"

namespace {

struct Backend {
  using Half = __half;
  using BFloat16 = __nv_bfloat16;

  template <class... A>
  static void spatial_gate(A... arguments) {
    pyreid::cuda::spatial_gate(arguments..., nullptr);
  }
  template <class... A>
  static void spatial_gate_gradient(A... arguments) {
    pyreid::cuda::spatial_gate_gradient(arguments..., nullptr);
  }
  template <class... A>
  static void spatial_gate_weight_gradient(A... arguments) {
    pyreid::cuda::spatial_gate_weight_gradient(arguments..., nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_SPATIAL_GATE(Backend)
