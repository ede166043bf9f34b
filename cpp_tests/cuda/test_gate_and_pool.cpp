#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cpp_tests/problems/gate_and_pool.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/gate_and_pool.cuh"

namespace {

struct Backend {
  using Half = __half;
  using BFloat16 = __nv_bfloat16;

  template <class... A>
  static void gate_and_pool(A... arguments) {
    pyreid::cuda::gate_and_pool(arguments..., nullptr);
  }
  template <class... A>
  static void gate_and_pool_gradient(A... arguments) {
    pyreid::cuda::gate_and_pool_gradient(arguments..., nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_GATE_AND_POOL(Backend)
