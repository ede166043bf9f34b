#include "csrc/cpu/self_distances.h"

#include <algorithm>
#include <cmath>

#include "csrc/cpu/simd/self_distances.h"

namespace pyreid::cpu {
namespace {

// Blocks of the lower triangle are numbered row by row: block (i, j) is i (i + 1) / 2 + j.
int64_t triangle_row(int64_t block) {
  auto row = static_cast<int64_t>((std::sqrt(8.0 * static_cast<double>(block) + 1.0) - 1.0) / 2.0);
  while (row * (row + 1) / 2 > block) --row;
  while ((row + 1) * (row + 2) / 2 <= block) ++row;
  return row;
}

}  // namespace

template <class T>
void squared_self_distances(const T* x, int64_t b, int64_t d, int64_t, T* squared, const ParallelFor& parallel_for) {
  const int64_t block_rows = (b + kBlockRows - 1) / kBlockRows;
  const int64_t grain = grain_for(kBlockRows * kBlockRows * d);
  parallel_for(0, block_rows * (block_rows + 1) / 2, grain, [=](int64_t begin, int64_t end) {
    int64_t block_i = triangle_row(begin);
    int64_t block_j = begin - block_i * (block_i + 1) / 2;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t i0 = block_i * kBlockRows, j0 = block_j * kBlockRows;
      const int64_t rows_i = std::min(kBlockRows, b - i0), rows_j = std::min(kBlockRows, b - j0);
      T values[kBlockRows * kBlockRows];
      PYREID_SIMD(block_squared_distances, x + i0 * d, rows_i, x + j0 * d, rows_j, d, values);
      for (int64_t i = 0; i < rows_i; ++i) {
        std::copy_n(values + i * kBlockRows, rows_j, squared + (i0 + i) * b + j0);
      }
      if (block_i != block_j) {
        for (int64_t j = 0; j < rows_j; ++j) {
          for (int64_t i = 0; i < rows_i; ++i) squared[(j0 + j) * b + i0 + i] = values[i * kBlockRows + j];
        }
      }
      if (++block_j > block_i) {
        ++block_i;
        block_j = 0;
      }
    }
  });
}

template void squared_self_distances(const float*, int64_t, int64_t, int64_t, float*, const ParallelFor&);
template void squared_self_distances(const double*, int64_t, int64_t, int64_t, double*, const ParallelFor&);

}  // namespace pyreid::cpu
