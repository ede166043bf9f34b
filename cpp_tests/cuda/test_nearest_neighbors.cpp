#include "cpp_tests/problems/nearest_neighbors.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/nearest_neighbors.cuh"

namespace {

struct Backend {
  template <class... A>
  static void keep_nearest(A... arguments) {
    pyreid::cuda::keep_nearest(arguments..., nullptr);
  }
  template <class... A>
  static void nearest_distances(A... arguments) {
    pyreid::cuda::nearest_distances(arguments..., nullptr);
  }
  template <class... A>
  static void nearest_gradients(A... arguments) {
    pyreid::cuda::nearest_gradients(arguments..., nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_NEAREST_NEIGHBORS(Backend)
