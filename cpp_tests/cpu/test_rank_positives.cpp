#include "csrc/cpu/rank_positives.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/rank_positives.h"

namespace {

struct Backend {
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class T>
  static void rank_positives(const pyreid::RankTask<T>& task, int64_t* ranks, int64_t* nans) {
    pyreid::cpu::rank_positives(task, ranks, nans, parallel_for);
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

PYREID_TEST_RANK_POSITIVES(Backend)
