#include "csrc/cpu/gate_and_pool.h"

#include "csrc/cpu/huge_pages.h"
#include "csrc/cpu/simd/gate_and_pool.h"

namespace pyreid::cpu {

template <class S>
void gate_and_pool(const S* x, const S* gate, int64_t rows, int64_t n, S* local, S* avg, S* largest, int64_t* index,
                   const ParallelFor& parallel_for) {
  advise_huge_pages(local, rows * n * static_cast<int64_t>(sizeof(S)));
  parallel_for(0, rows, grain_for(n), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      PYREID_SIMD(gate_row, x + r * n, gate + r * n, n, local + r * n, avg + r, largest + r, index + r);
    }
  });
}

template <class S>
void gate_and_pool_gradient(const S* dlocal, const S* davg, const S* dlargest, const S* x, const S* gate,
                            const int64_t* index, int64_t rows, int64_t n, S* dx, S* dgate,
                            const ParallelFor& parallel_for) {
  const int64_t bytes = rows * n * static_cast<int64_t>(sizeof(S));
  if (dx != nullptr) advise_huge_pages(dx, bytes);
  if (dgate != nullptr) advise_huge_pages(dgate, bytes);
  const auto at = [](auto* p, int64_t offset) { return p == nullptr ? nullptr : p + offset; };
  parallel_for(0, rows, grain_for(n), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t first = r * n, best = first + index[r];
      const S* row_davg = at(davg, r);
      const S* none = nullptr;
      PYREID_SIMD(gate_gradient_row, at(dlocal, first), row_davg, none, x + first, gate + first, n, n, at(dx, first),
                  at(dgate, first));
      if (dlargest != nullptr) {  // the one place with another gradient, once more
        PYREID_SIMD(gate_gradient_row, at(dlocal, best), row_davg, dlargest + r, x + best, gate + best, 1, n,
                    at(dx, best), at(dgate, best));
      }
    }
  });
}

#define PYREID_INSTANTIATE(S)                                                                                     \
  template void gate_and_pool(const S*, const S*, int64_t, int64_t, S*, S*, S*, int64_t*, const ParallelFor&);    \
  template void gate_and_pool_gradient(const S*, const S*, const S*, const S*, const S*, const int64_t*, int64_t, \
                                       int64_t, S*, S*, const ParallelFor&);
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
PYREID_INSTANTIATE(Half)
PYREID_INSTANTIATE(BFloat16)
#undef PYREID_INSTANTIATE

}  // namespace pyreid::cpu
