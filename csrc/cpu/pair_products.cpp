#include "csrc/cpu/pair_products.h"

namespace pyreid::cpu {
namespace {

constexpr int64_t kChains = 8;  // independent sums hide the latency of the additions

template <class T>
double product_of(const T* x, const T* y, int64_t d) {
  double chain[kChains] = {};
  int64_t k = 0;
  for (; k + kChains <= d; k += kChains) {
    for (int64_t c = 0; c < kChains; ++c) chain[c] += static_cast<double>(x[k + c]) * static_cast<double>(y[k + c]);
  }
  for (; k < d; ++k) chain[0] += static_cast<double>(x[k]) * static_cast<double>(y[k]);
  double sum = chain[0];
  for (int64_t c = 1; c < kChains; ++c) sum += chain[c];
  return sum;
}

}  // namespace

template <class T>
void pair_products(const PairTask<T>& task, double* products, const ParallelFor& parallel_for) {
  parallel_for(0, task.pairs, grain_for(task.d), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      products[i] = product_of(task.x + task.rows[i] * task.d, task.y + task.items[i] * task.d, task.d);
    }
  });
}

template void pair_products(const PairTask<float>&, double*, const ParallelFor&);
template void pair_products(const PairTask<double>&, double*, const ParallelFor&);

}  // namespace pyreid::cpu
