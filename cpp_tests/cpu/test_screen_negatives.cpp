#include "csrc/cpu/screen_negatives.h"

#include "cpp_tests/cpu/splits.h"
#include "cpp_tests/problems/screen_negatives.h"
#include "csrc/cpu/pair_products.h"

namespace {

struct Backend {
  static inline pyreid::cpu::ParallelFor parallel_for = pyreid::test::whole;

  static void screen_negatives(const pyreid::ScreenTask& task, int64_t* entered, int32_t* items, int64_t* undecided) {
    pyreid::cpu::screen_negatives(task, entered, items, undecided, parallel_for);
  }
  template <class T>
  static void pair_products(const pyreid::PairTask<T>& task, double* products) {
    pyreid::cpu::pair_products(task, products, parallel_for);
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

PYREID_TEST_SCREEN_NEGATIVES(Backend)
