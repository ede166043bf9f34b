#include "csrc/cpu/spatial_gate.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/spatial_gate.h"

namespace {

struct Backend {
  using Half = pyreid::cpu::Half;
  using BFloat16 = pyreid::cpu::BFloat16;
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class... A>
  static void spatial_gate(A... arguments) {
    pyreid::cpu::spatial_gate(arguments..., parallel_for);
  }
  template <class... A>
  static void spatial_gate_gradient(A... arguments) {
    pyreid::cpu::spatial_gate_gradient(arguments..., parallel_for);
  }
  template <class... A>
  static void spatial_gate_weight_gradient(A... arguments) {
    pyreid::cpu::spatial_gate_weight_gradient(arguments..., parallel_for);
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

PYREID_TEST_SPATIAL_GATE(Backend)
