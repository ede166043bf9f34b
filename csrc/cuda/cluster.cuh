// Thread-block clusters (Hopper and later): blocks that run at the same time and read each other's shared memory.
#pragma once
#include <atomic>
#include <cstdlib>

#include "csrc/cuda/check.cuh"
#include "csrc/cuda/launch.cuh"

namespace pyreid::cuda {

#ifndef PYREID_SHIM
// Waits for all threads of all blocks of the cluster; what they wrote to shared memory before is then visible to all.
__device__ __forceinline__ void cluster_barrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
}

// Where the block `rank` of the cluster has what this block has at `p`, in dynamic shared memory. The other block must
// not return before the last access.
template <class T>
__device__ __forceinline__ const T* in_block(const T* p, unsigned rank) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  return static_cast<const T*>(__cluster_map_shared_rank(p, rank));
#else
  return p;  // never called: a device without clusters is not sent such a kernel
#endif
}
#endif

// Whether the current device can run clusters of `blocks` blocks of this kernel. Asked once for each device, and held
// in `support`, which belongs to the kernel. PYREID_CUDA_CLUSTERS=0 says no.
struct ClusterSupport {
  static constexpr int kDevices = 64;
  std::atomic<signed char> known[kDevices] = {};  // 0: not asked yet, 1: no, 2: yes
};

template <class... Arguments>
bool can_cluster(void (*kernel)(Arguments...), unsigned blocks, unsigned threads, size_t shared_bytes,
                 ClusterSupport& support) {
  int device = 0;
  PYREID_CUDA_CHECK(cudaGetDevice(&device));
  if (device >= ClusterSupport::kDevices) return false;
  std::atomic<signed char>& known = support.known[device];
  if (known.load(std::memory_order_relaxed) == 0) {
    int able = 0, clusters = 0;
    PYREID_CUDA_CHECK(cudaDeviceGetAttribute(&able, cudaDevAttrClusterLaunch, device));
    const char* allowed = std::getenv("PYREID_CUDA_CLUSTERS");
    if (able && !(allowed && allowed[0] == '0')) {
      // A slice of a device may have too few multiprocessors in one place for a whole cluster.
      cudaLaunchAttribute attribute = {};
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = blocks;
      attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
      cudaLaunchConfig_t config = {};
      config.gridDim = dim3(blocks);
      config.blockDim = dim3(threads);
      config.dynamicSmemBytes = shared_bytes;
      config.attrs = &attribute;
      config.numAttrs = 1;
      if (cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) != cudaSuccess) {
        cudaGetLastError();  // it is no error of the caller's
        clusters = 0;
      }
    }
    known.store(clusters > 0 ? 2 : 1, std::memory_order_relaxed);
  }
  return known.load(std::memory_order_relaxed) == 2;
}

}  // namespace pyreid::cuda
