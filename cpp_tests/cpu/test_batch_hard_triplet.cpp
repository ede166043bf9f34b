#include "csrc/cpu/batch_hard_triplet.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/triplet.h"
#include "csrc/cpu/self_distances.h"

namespace {

struct Backend {
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  template <class T, class... A>
  static void batch_hard_triplet(const T* x, const int64_t* labels, int64_t b, int64_t d, A... arguments) {
    std::vector<T> squared = pyreid::test::unwritten<T>(b * b);
    pyreid::cpu::squared_self_distances(x, b, d, squared.data(), parallel_for);
    pyreid::cpu::batch_hard_triplet(squared.data(), labels, b, arguments..., parallel_for);
  }
  template <class... A>
  static void batch_hard_triplet_backward(A... arguments) {
    pyreid::cpu::batch_hard_triplet_backward(arguments..., parallel_for);
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

PYREID_TEST_TRIPLET(Backend, true)
