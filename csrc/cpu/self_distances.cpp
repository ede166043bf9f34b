#include "csrc/cpu/self_distances.h"

#include <algorithm>

#include "csrc/cpu/aligned_array.h"
#include "csrc/cpu/simd/self_distances.h"

namespace pyreid::cpu {
namespace {

// Columns of a strip that are packed in one go.
constexpr int64_t kPackColumns = 256;

}  // namespace

template <class T>
void squared_self_distances(const T* x, int64_t b, int64_t d, T* squared, const ParallelFor& parallel_for) {
  const int64_t rows = PYREID_SIMD(strip_rows, T{});
  const int64_t strips = (b + rows - 1) / rows, parts = (d + kPackColumns - 1) / kPackColumns;
  const AlignedArray<T> packed(strips * rows * d);
  parallel_for(0, strips * parts, grain_for(rows * kPackColumns), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t column = task % parts * kPackColumns;
      PYREID_SIMD(pack_strip, x, b, d, task / parts, column, std::min(column + kPackColumns, d), packed.data());
    }
  });
  const int64_t tiles = PYREID_SIMD(count_tiles, b, T{});
  parallel_for(0, tiles, grain_for(PYREID_SIMD(tile_pairs, T{}) * d), [&](int64_t begin, int64_t end) {
    PYREID_SIMD(squared_distances, packed.data(), b, d, begin, end, squared);
  });
}

template void squared_self_distances(const float*, int64_t, int64_t, float*, const ParallelFor&);
template void squared_self_distances(const double*, int64_t, int64_t, double*, const ParallelFor&);

}  // namespace pyreid::cpu
