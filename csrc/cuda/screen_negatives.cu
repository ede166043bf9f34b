// Counts the negatives before each positive where approximate products suffice, and lists those where they do not.
//
// A block owns a query row (grid-stride over rows). Its thresholds and counters lie in shared memory if there are few
// enough, else in global memory. All threads walk the row; what is decided is counted by an integer atomic, what is not
// gets a place in the row's own list by another, so no two blocks meet. Bytes: one read of the products and of the
// column, 8 a pair, of which the column's come from the cache; the errors are read for the few items that lie near a
// positive. The counts do not depend on the order of the atomics, the order of a list does.
#include "csrc/cuda/screen_negatives.cuh"

#include "csrc/cuda/launch.cuh"

namespace pyreid::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kShared = 1024;  // thresholds in shared memory: 16 KB with their counters

__global__ void screen_negatives_kernel(ScreenTask task, int64_t* __restrict__ entered, int32_t* __restrict__ items,
                                        int64_t* __restrict__ undecided) {
  __shared__ float shared_below[kShared], shared_above[kShared];
  __shared__ unsigned long long shared_counters[kShared];
  __shared__ unsigned long long listed;

  for (int64_t q = blockIdx.x; q < task.rows; q += gridDim.x) {
    const int64_t start = task.starts[q], n = task.starts[q + 1] - start;
    const bool in_shared = n <= kShared;
    const float* below = in_shared ? shared_below : task.below + start;
    const float* above = in_shared ? shared_above : task.above + start;
    // The row's places in `entered` are this block's alone.
    unsigned long long* counters = in_shared ? shared_counters : reinterpret_cast<unsigned long long*>(entered + start);

    if (in_shared) {
      for (int64_t p = threadIdx.x; p < n; p += kThreads) {
        shared_below[p] = task.below[start + p];
        shared_above[p] = task.above[start + p];
        shared_counters[p] = 0;
      }
    }
    if (threadIdx.x == 0) listed = 0;
    __syncthreads();
    for (int64_t g = threadIdx.x; n > 0 && g < task.columns; g += kThreads) {
      const Screened at = screen(task, q, g, below, above, n);
      if (!at.decided) {
        const int64_t place = static_cast<int64_t>(atomicAdd(&listed, 1ULL));
        if (place < task.capacity) items[q * task.capacity + place] = static_cast<int32_t>(g);
      } else if (at.first < n) {
        atomicAdd(&counters[at.first], 1ULL);
      }
    }
    __syncthreads();
    if (in_shared) {
      for (int64_t p = threadIdx.x; p < n; p += kThreads) entered[start + p] += static_cast<int64_t>(counters[p]);
    }
    if (threadIdx.x == 0) undecided[q] = static_cast<int64_t>(listed);
  }
}

}  // namespace

void screen_negatives(const ScreenTask& task, int64_t* entered, int32_t* items, int64_t* undecided,
                      cudaStream_t stream) {
  if (task.rows == 0) return;
  PYREID_LAUNCH((screen_negatives_kernel), grid_for(task.rows, 1), kThreads, 0, stream, task, entered, items,
                undecided);
}

}  // namespace pyreid::cuda
