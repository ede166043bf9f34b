// Kernel launches go through PYREID_LAUNCH, so that cpp_tests can run the same text on the CPU, where <<<>>> is no C++.
#pragma once
#include <cstdint>

#include "csrc/cuda/check.cuh"

#ifndef PYREID_LAUNCH
// A kernel with template arguments is written in parentheses: PYREID_LAUNCH((kernel<T, 256>), grid, ...).
#define PYREID_UNPACK(...) __VA_ARGS__
#define PYREID_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                 \
  do {                                                                                \
    PYREID_UNPACK kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__); \
    PYREID_CUDA_CHECK(cudaGetLastError());                                            \
  } while (0)
#endif

#ifndef PYREID_LAUNCH_CLUSTERS
// The same with the grid divided into clusters of `cluster` blocks along x (csrc/cuda/cluster.cuh).
#define PYREID_LAUNCH_CLUSTERS(kernel, grid, block, cluster, shared_bytes, stream, ...)       \
  do {                                                                                        \
    cudaLaunchAttribute pyreid_attribute = {};                                                \
    pyreid_attribute.id = cudaLaunchAttributeClusterDimension;                                \
    pyreid_attribute.val.clusterDim.x = (cluster);                                            \
    pyreid_attribute.val.clusterDim.y = pyreid_attribute.val.clusterDim.z = 1;                \
    cudaLaunchConfig_t pyreid_config = {};                                                    \
    pyreid_config.gridDim = (grid);                                                           \
    pyreid_config.blockDim = (block);                                                         \
    pyreid_config.dynamicSmemBytes = (shared_bytes);                                          \
    pyreid_config.stream = (stream);                                                          \
    pyreid_config.attrs = &pyreid_attribute;                                                  \
    pyreid_config.numAttrs = 1;                                                               \
    PYREID_CUDA_CHECK(cudaLaunchKernelEx(&pyreid_config, PYREID_UNPACK kernel, __VA_ARGS__)); \
  } while (0)
#endif

#ifndef PYREID_DYNAMIC_SHARED
// The dynamic shared memory of a block as an array of T.
#define PYREID_DYNAMIC_SHARED(T, name)                        \
  extern __shared__ __align__(16) unsigned char name##_raw[]; \
  T* name = reinterpret_cast<T*>(name##_raw)
#endif

#ifndef PYREID_GRID_CAP
#define PYREID_GRID_CAP (int64_t{1} << 20)
#endif

namespace pyreid::cuda {

// Dynamic shared memory that a block has without asking: 48 KB less what its static arrays take.
inline constexpr int64_t kSharedBytes = 46 * 1024;

// Blocks needed for n items, capped: kernels walk the rest in a grid-stride loop, with 64-bit indices.
inline unsigned grid_for(int64_t n, int64_t per_block, int64_t cap = PYREID_GRID_CAP) {
  const int64_t blocks = (n + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > cap ? cap : blocks);
}

}  // namespace pyreid::cuda
