#include "csrc/cpu/masked_mix.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/masked_mix.h"

namespace {

struct Backend {
  using Half = pyreid::cpu::Half;
  using BFloat16 = pyreid::cpu::BFloat16;
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class... A>
  static void masked_mix(A... arguments) {
    pyreid::cpu::masked_mix(arguments..., parallel_for);
  }
  template <class... A>
  static void masked_mix_gradient(A... arguments) {
    pyreid::cpu::masked_mix_gradient(arguments..., parallel_for);
  }
  template <class... A>
  static void masked_mix_mask_gradient(A... arguments) {
    pyreid::cpu::masked_mix_mask_gradient(arguments..., parallel_for);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_split([&](const pyreid::cpu::ParallelFor& split) {
      parallel_for = split;
      return run();
    });
  }
};

}  // namespace

PYREID_TEST_MASKED_MIX(Backend)
