#include "csrc/cpu/gate_and_pool.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/gate_and_pool.h"

namespace {

struct Backend {
  using Half = pyreid::cpu::Half;
  using BFloat16 = pyreid::cpu::BFloat16;
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class... A>
  static void gate_and_pool(A... arguments) {
    pyreid::cpu::gate_and_pool(arguments..., parallel_for);
  }
  template <class... A>
  static void gate_and_pool_gradient(A... arguments) {
    pyreid::cpu::gate_and_pool_gradient(arguments..., parallel_for);
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

PYREID_TEST_GATE_AND_POOL(Backend)
