#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cpp_tests/problems/masked_mix.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/masked_mix.cuh"

namespace {

struct Backend {
  using Half = __half;
  using BFloat16 = __nv_bfloat16;

  template <class... A>
  static void masked_mix(A... arguments) {
    pyreid::cuda::masked_mix(arguments..., nullptr);
  }
  template <class... A>
  static void masked_mix_gradient(A... arguments) {
    pyreid::cuda::masked_mix_gradient(arguments..., nullptr);
  }
  template <class... A>
  static void masked_mix_mask_gradient(A... arguments) {
    pyreid::cuda::masked_mix_mask_gradient(arguments..., nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_MASKED_MIX(Backend)
