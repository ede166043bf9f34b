#include "cpp_tests/problems/rank_positives.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/rank_positives.cuh"

namespace {

struct Backend {
  template <class T>
  static void rank_positives(const pyreid::RankTask<T>& task, int64_t* ranks, int64_t* nans) {
    pyreid::cuda::rank_positives(task, ranks, nans, nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_RANK_POSITIVES(Backend)
