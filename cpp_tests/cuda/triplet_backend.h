// The CUDA triplet kernels as the backend of problems/triplet.h, on any of their paths.
#pragma once
#include <utility>
#include <vector>

#include "cpp_tests/problems/triplet.h"
#include "cpp_tests/schedule.h"
#include "csrc/cuda/batch_hard_triplet.cuh"
#include "csrc/cuda/batch_soft_triplet.cuh"
#include "csrc/cuda/tickets.cuh"

namespace pyreid::test {

template <bool kClusters>
struct CudaTriplets {
  // As inexact as TF32 products are: features keep 10 bits.
  template <class T>
  static std::vector<T> products(const T* x, int64_t b, int64_t d) {
    const auto rounded = [](T value) {
      if constexpr (sizeof(T) == 8) return value;
      uint32_t bits = shim::detail::to_bits(value) & 0xffffffffu;
      if ((bits & 0x7f800000u) != 0x7f800000u) bits &= 0xffffe000u;
      return shim::detail::from_bits<T>(bits);
    };
    std::vector<T> out(b * b);
    for (int64_t i = 0; i < b; ++i) {
      for (int64_t j = 0; j < b; ++j) {
        T sum = 0;
        for (int64_t k = 0; k < d; ++k) sum += rounded(x[i * d + k]) * rounded(x[j * d + k]);
        out[i * b + j] = sum;
      }
    }
    return out;
  }

  template <class T>
  static void batch_hard_triplet(const T* x, const int64_t* labels, int64_t b, int64_t d, Margin margin,
                                 Reduction reduction, T* losses, T* loss, int32_t* pairs, T* slopes) {
    const std::vector<T> all = b > cuda::kSmallBatch ? products(x, b, d) : std::vector<T>();
    std::vector<T> scratch = unwritten<T>(cuda::hard_triplet_scratch(b, d, kClusters));
    cuda::batch_hard_triplet(x, all.data(), labels, b, d, kClusters, margin, reduction, scratch.data(), losses, loss,
                             pairs, slopes, nullptr);
  }
  template <class T>
  static void batch_soft_triplet(const T* x, const int64_t* labels, int64_t b, int64_t d, Margin margin,
                                 Reduction reduction, T* losses, T* loss, T* weights, T* slopes) {
    std::vector<T> scratch = unwritten<T>(cuda::soft_triplet_scratch(b, d, kClusters));
    cuda::batch_soft_triplet(x, labels, b, d, kClusters, margin, reduction, scratch.data(), losses, loss, weights,
                             slopes, nullptr);
  }
  template <class... A>
  static void batch_hard_triplet_backward(A... arguments) {
    cuda::batch_hard_triplet_backward(arguments..., nullptr);
  }
  template <class... A>
  static void batch_soft_triplet_backward(A... arguments) {
    cuda::batch_soft_triplet_backward(arguments..., nullptr);
  }
  template <class Run>
  static auto repeat(const Run& run) {
    return in_every_schedule(run);
  }
};

// Batches at the edges of tiles, groups, parts and paths: of blocks, few columns where there are many rows, since the
// shim is slow; of clusters, those whose columns are split at all.
inline const std::vector<std::pair<int64_t, int64_t>> kBlockSizes = {{2, 1},   {3, 4},   {33, 5},  {72, 20}, {5, 2048},
                                                                     {129, 3}, {255, 1}, {256, 4}, {257, 4}};
inline const std::vector<std::pair<int64_t, int64_t>> kClusterSizes = {{2, 257}, {3, 2049}, {5, 2048},
                                                                       {9, 770}, {33, 260}, {130, 260}};

template <class Backend, bool kHard>
void check_sizes(const std::vector<std::pair<int64_t, int64_t>>& sizes) {
  const std::vector<Reduction> mean = {Reduction::kMean};
  const std::vector<Margin> soft = {{true, 0}};
  for (const auto& [b, d] : sizes) {
    check_triplet_batch<float, Backend, kHard>(random_batch<float>(b, d, b / 3 + 2), mean, soft);
    if (b < 72) check_triplet_batch<double, Backend, kHard>(random_batch<double>(b, d, b / 3 + 2), mean, soft);
  }
}

// Rows that are equal, or nearly, in a batch of the large path: products alone do not tell which is nearest.
template <class T>
Batch<T> batch_with_duplicates(int64_t b, int64_t d) {
  Batch<T> batch = random_batch<T>(b, d, 5);
  Random random(13);
  const int64_t centres = b / 6;
  for (int64_t i = centres; i < b; ++i) {
    for (int64_t k = 0; k < d; ++k) {
      const T near = static_cast<T>(1 + (i % 3) * 1e-3 * (random.below(9) - 4));
      batch.x[i * d + k] = batch.x[i % centres * d + k] * near;
    }
  }
  return batch;
}

template <bool kHard, bool kClusters, class T>
auto run_on_path(const TripletCase<T>& c) {
  if constexpr (kHard) {
    return run_hard<T, CudaTriplets<kClusters>>(c);
  } else {
    return run_soft<T, CudaTriplets<kClusters>>(c);
  }
}

// Clusters, blocks without clusters, and blocks without counters give the same bits.
template <bool kHard>
void check_paths_agree() {
  const TripletCase<float> c{random_batch<float>(13, 1100, 4), {true, 0}, Reduction::kMean, {1}};
  const auto blocks = run_on_path<kHard, false>(c);
  CHECK(same_bits(run_on_path<kHard, true>(c), blocks));
  shim::capturing = true;  // a launch takes counters for good, until there are none
  CHECK(same_bits(run_on_path<kHard, false>(c), blocks));
  while (cuda::ticket_slot(nullptr) != cuda::kNoSlot) {
  }
  const auto without = run_on_path<kHard, false>(c);
  const auto clusters_without = run_on_path<kHard, true>(c);
  shim::capturing = false;
  CHECK(same_bits(without, blocks));
  CHECK(same_bits(clusters_without, blocks));
  CHECK(same_bits(run_on_path<kHard, false>(c), blocks));  // the stream still has its own
}

}  // namespace pyreid::test
