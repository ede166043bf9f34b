#include "csrc/cpu/batch_soft_triplet.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/triplet.h"
#include "csrc/cpu/self_distances.h"

namespace {

struct Backend {
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  static int64_t distance_splits(int64_t b, int64_t d) { return pyreid::cpu::distance_splits(b, d); }
  template <class... A>
  static void squared_self_distances(A... arguments) {
    pyreid::cpu::squared_self_distances(arguments..., parallel_for);
  }
  template <class... A>
  static void batch_soft_triplet(A... arguments) {
    pyreid::cpu::batch_soft_triplet(arguments..., parallel_for);
  }
  template <class... A>
  static void batch_soft_triplet_backward(A... arguments) {
    pyreid::cpu::batch_soft_triplet_backward(arguments..., parallel_for);
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

PYREID_TEST_TRIPLET(Backend, false)

TEST(distant_rows) { pyreid::test::check_distant_triplets<Backend>(); }
