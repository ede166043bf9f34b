#include "csrc/cpu/pairwise_distance.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/pairwise_distance.h"

namespace {

struct Backend {
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class... A>
  static void squared_norms(A... arguments) {
    pyreid::cpu::squared_norms(arguments..., parallel_for);
  }
  template <class... A>
  static void distances_from_products(A... arguments) {
    pyreid::cpu::distances_from_products(arguments..., parallel_for);
  }
  template <class... A>
  static void distance_gradient_weights(A... arguments) {
    pyreid::cpu::distance_gradient_weights(arguments..., parallel_for);
  }
  template <class... A>
  static void scaled_rows_minus(A... arguments) {
    pyreid::cpu::scaled_rows_minus(arguments..., parallel_for);
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

PYREID_TEST_PAIRWISE_DISTANCE(Backend)
