#include "cpp_tests/problems/screen_negatives.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/pair_products.cuh"
#include "csrc/cuda/screen_negatives.cuh"

namespace {

struct Backend {
  static void screen_negatives(const pyreid::ScreenTask& task, int64_t* entered, int32_t* items, int64_t* undecided) {
    pyreid::cuda::screen_negatives(task, entered, items, undecided, nullptr);
  }
  template <class T>
  static void pair_products(const pyreid::PairTask<T>& task, double* products) {
    pyreid::cuda::pair_products(task, products, nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return pyreid::test::in_every_schedule(run);
  }
};

}  // namespace

PYREID_TEST_SCREEN_NEGATIVES(Backend)
