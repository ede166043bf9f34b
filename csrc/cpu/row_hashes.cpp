#include "csrc/cpu/row_hashes.h"

#include "csrc/row_hashes.h"

namespace pyreid::cpu {
namespace {

constexpr int64_t kChains = 4;  // independent chains hide the latency of the multiplication

template <class Word>
uint64_t hash_row(const Word* x, int64_t d) {
  uint64_t chain[kChains] = {1, 2, 3, 4};
  int64_t k = 0;
  for (; k + kChains <= d; k += kChains) {
    for (int64_t c = 0; c < kChains; ++c) chain[c] = hash_step(chain[c], hashed_word(x[k + c]));
  }
  for (; k < d; ++k) chain[0] = hash_step(chain[0], hashed_word(x[k]));
  uint64_t hash = chain[0];
  for (int64_t c = 1; c < kChains; ++c) hash = hash_step(hash, chain[c]);
  return hash;
}

}  // namespace

template <class Word>
void row_hashes(const Word* x, int64_t n, int64_t d, int64_t* hashes, const ParallelFor& parallel_for) {
  parallel_for(0, n, grain_for(d), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) hashes[i] = static_cast<int64_t>(hash_row(x + i * d, d));
  });
}

template void row_hashes(const uint16_t*, int64_t, int64_t, int64_t*, const ParallelFor&);
template void row_hashes(const uint32_t*, int64_t, int64_t, int64_t*, const ParallelFor&);
template void row_hashes(const uint64_t*, int64_t, int64_t, int64_t*, const ParallelFor&);

}  // namespace pyreid::cpu
