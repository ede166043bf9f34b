#include "cpp_tests/problems/pairwise_distance.h"

#include "cpp_tests/schedule.h"
#include "csrc/cuda/pairwise_distance.cuh"

namespace {

struct Backend {
  template <class... A>
  static void squared_norms(A... arguments) {
    pyreid::cuda::squared_norms(arguments..., nullptr);
  }
  template <class... A>
  static void distances_from_products(A... arguments) {
    pyreid::cuda::distances_from_products(arguments..., nullptr);
  }
  template <class... A>
  static void distance_gradient_weights(A... arguments) {
    pyreid::cuda::distance_gradient_weights(arguments..., nullptr);
  }
  template <class... A>
  static void scaled_rows_minus(A... arguments) {
    pyreid::cuda::scaled_rows_minus(arguments..., nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_PAIRWISE_DISTANCE(Backend)
