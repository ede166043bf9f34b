// Inner products of chosen pairs of rows, in float64.
//
// A warp owns a pair: each lane sums every 32nd product, and the lanes' sums meet in a fixed order, so a pair's product
// depends on its two rows alone. A caller that sorts the pairs by row finds x in the first-level cache. Bytes: 2 D
// elements a pair, of which those of y mostly come from memory, and 24 bytes.
#include "csrc/cuda/pair_products.cuh"

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/reduce.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

template <class T>
__global__ void pair_products_kernel(PairTask<T> task, double* __restrict__ products) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / kWarpSize; i < task.pairs; i += stride) {
    const T* x = task.x + task.rows[i] * task.d;
    const T* y = task.y + task.items[i] * task.d;
    double sum = 0;
    for (int64_t k = lane; k < task.d; k += kWarpSize) sum += static_cast<double>(x[k]) * static_cast<double>(y[k]);
    sum = warp_sum(sum);
    if (lane == 0) products[i] = sum;
  }
}

}  // namespace

template <class T>
void pair_products(const PairTask<T>& task, double* products, cudaStream_t stream) {
  if (task.pairs == 0) return;
  PYREID_LAUNCH((pair_products_kernel<T>), grid_for(task.pairs, kWarps), kThreads, 0, stream, task, products);
}

template void pair_products(const PairTask<float>&, double*, cudaStream_t);
template void pair_products(const PairTask<double>&, double*, cudaStream_t);

}  // namespace pyreid::cuda
