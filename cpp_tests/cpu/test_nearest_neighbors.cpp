#include "csrc/cpu/nearest_neighbors.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/nearest_neighbors.h"

namespace {

struct Backend {
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class... A>
  static void keep_nearest(A... arguments) {
    pyreid::cpu::keep_nearest(arguments..., parallel_for);
  }
  template <class... A>
  static void nearest_distances(A... arguments) {
    pyreid::cpu::nearest_distances(arguments..., parallel_for);
  }
  template <class... A>
  static void nearest_gradients(A... arguments) {
    pyreid::cpu::nearest_gradients(arguments..., parallel_for);
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

PYREID_TEST_NEAREST_NEIGHBORS(Backend)
