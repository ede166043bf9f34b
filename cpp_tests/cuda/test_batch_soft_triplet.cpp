#include "cpp_tests/problems/triplet.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/batch_soft_triplet.cuh"
#include "csrc/cuda/self_distances.cuh"

namespace {

struct Backend {
  static int64_t distance_splits(int64_t b, int64_t d) { return pyreid::cuda::distance_splits(b, d); }
  template <class... A>
  static void squared_self_distances(A... arguments) {
    pyreid::cuda::squared_self_distances(arguments..., nullptr);
  }
  template <class... A>
  static void batch_soft_triplet(A... arguments) {
    pyreid::cuda::batch_soft_triplet(arguments..., nullptr);
  }
  template <class... A>
  static void batch_soft_triplet_backward(A... arguments) {
    pyreid::cuda::batch_soft_triplet_backward(arguments..., nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_TRIPLET(Backend, false)

TEST(distant_rows) { pyreid::test::check_distant_triplets<Backend>(); }
