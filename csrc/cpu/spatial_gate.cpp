#include "csrc/cpu/spatial_gate.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "csrc/cpu/huge_pages.h"
#include "csrc/cpu/simd/spatial_gate.h"

namespace pyreid::cpu {
namespace {

constexpr int64_t kTaps = 9;
// Operations for a value, as multiples of a plain sum's
constexpr int64_t kCost = 8;

// Scratch of a task, aligned for the widest vectors. It is null, and nothing is thrown, if there is no memory.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : memory_(::operator new(static_cast<size_t>(count) * sizeof(T), std::align_val_t{64}, std::nothrow)) {}
  ~Scratch() { ::operator delete(memory_, std::align_val_t{64}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return static_cast<T*>(memory_); }

 private:
  void* memory_;
};

// body(first, count, scratch) for groups of planes
template <class T, class Body>
void for_groups(int64_t planes, int64_t positions, int64_t scratch_values, const ParallelFor& parallel_for,
                const Body& body) {
  const int64_t group = PYREID_SIMD(gate_planes, T{});
  std::atomic<bool> out_of_memory = false;
  parallel_for(0, (planes + group - 1) / group, grain_for(group * positions * kCost), [&](int64_t begin, int64_t end) {
    const Scratch<T> scratch(scratch_values);
    if (scratch.get() == nullptr) {
      out_of_memory = true;
      return;
    }
    for (int64_t i = begin; i < end; ++i) body(i * group, std::min(group, planes - i * group), scratch.get());
  });
  if (out_of_memory) throw std::bad_alloc();
}

}  // namespace

template <class S, class T>
void spatial_gate(const S* x, const T* weight1, const T* weight2, int64_t samples, int64_t channels, int64_t height,
                  int64_t width, T slope, S* local, S* avg, S* max, int64_t* argmax, const ParallelFor& parallel_for) {
  const int64_t planes = samples * channels, positions = height * width;
  if (planes == 0) return;
  advise_huge_pages(local, planes * positions * static_cast<int64_t>(sizeof(S)));
  const int64_t scratch_values = PYREID_SIMD(gate_scratch, T{}, height, width);
  for_groups<T>(planes, positions, scratch_values, parallel_for, [=](int64_t first, int64_t count, T* scratch) {
    PYREID_SIMD(gate_group, x, weight1, weight2, first, count, channels, height, width, slope, scratch, local, avg, max,
                argmax);
  });
}

template <class S, class T>
void spatial_gate_gradient(const S* dlocal, const S* davg, const S* dmax, const S* x, const T* weight1,
                           const T* weight2, const int64_t* argmax, int64_t samples, int64_t channels, int64_t height,
                           int64_t width, T slope, S* dx, T* dweights, const ParallelFor& parallel_for) {
  const int64_t planes = samples * channels, positions = height * width;
  if (planes == 0) return;
  if (dx != nullptr) advise_huge_pages(dx, planes * positions * static_cast<int64_t>(sizeof(S)));
  const int64_t scratch_values = PYREID_SIMD(gate_gradient_scratch, T{}, height, width);
  for_groups<T>(planes, positions, scratch_values, parallel_for, [=](int64_t first, int64_t count, T* scratch) {
    PYREID_SIMD(gate_gradient_group, dlocal, davg, dmax, x, weight1, weight2, argmax, first, count, channels, height,
                width, slope, scratch, dx, dweights);
  });
}

template <class T>
void spatial_gate_weight_gradient(const T* dweights, int64_t samples, int64_t channels, T* dweight1, T* dweight2,
                                  const ParallelFor& parallel_for) {
  parallel_for(0, channels, grain_for(2 * kTaps * samples), [=](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double sums[2 * kTaps] = {};
      for (int64_t n = 0; n < samples; ++n) {
        const T* of_plane = dweights + (n * channels + c) * 2 * kTaps;
        for (int64_t k = 0; k < 2 * kTaps; ++k) sums[k] += static_cast<double>(of_plane[k]);
      }
      for (int64_t k = 0; k < kTaps; ++k) {
        dweight1[c * kTaps + k] = static_cast<T>(sums[k]);
        dweight2[c * kTaps + k] = static_cast<T>(sums[kTaps + k]);
      }
    }
  });
}

#define PYREID_INSTANTIATE_PLANES(S, T)                                                                           \
  template void spatial_gate(const S*, const T*, const T*, int64_t, int64_t, int64_t, int64_t, T, S*, S*, S*,     \
                             int64_t*, const ParallelFor&);                                                       \
  template void spatial_gate_gradient(const S*, const S*, const S*, const S*, const T*, const T*, const int64_t*, \
                                      int64_t, int64_t, int64_t, int64_t, T, S*, T*, const ParallelFor&);
#define PYREID_INSTANTIATE(T) \
  template void spatial_gate_weight_gradient(const T*, int64_t, int64_t, T*, T*, const ParallelFor&);
PYREID_INSTANTIATE_PLANES(float, float)
PYREID_INSTANTIATE_PLANES(double, double)
PYREID_INSTANTIATE_PLANES(Half, float)
PYREID_INSTANTIATE_PLANES(BFloat16, float)
PYREID_INSTANTIATE(float)
PYREID_INSTANTIATE(double)
#undef PYREID_INSTANTIATE
#undef PYREID_INSTANTIATE_PLANES

}  // namespace pyreid::cpu
