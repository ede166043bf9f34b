#include "csrc/cpu/simd/masked_mix.h"

#include "csrc/cpu/simd/each_vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

// With a mask of 0 or 1 one product is the value itself and the other 0, in any order of rounding.
template <class T>
inline Vec<T> mix(Vec<T> local, Vec<T> x, Vec<T> identity, Vec<T> mask) {
  const Vec<T> sum = x + identity;
  const Vec<T> global = sum <= T(0) ? Vec<T>{} : sum;  // keeps NaN
  return mask * local + (T(1) - mask) * global;
}

template <class S, class T>
void row_impl(const S* local, const S* x, const S* identity, int64_t n, T mask, S* out) {
  const Vec<T> m = broadcast(mask);
  each_vector<T>(
      0, n, [=](auto place) { place.store(out, mix<T>(place.load(local), place.load(x), place.load(identity), m)); });
}

template <class S, class T>
void channels_impl(const S* local, const S* x, const S* identity, const T* mask, int64_t positions, int64_t channels,
                   S* out) {
  for (int64_t p = 0; p < positions; ++p) {
    const int64_t offset = p * channels;
    each_vector<T>(0, channels, [=](auto place) {
      place.store(out + offset, mix<T>(place.load(local + offset), place.load(x + offset),
                                       place.load(identity + offset), place.load(mask)));
    });
  }
}

// The gradients at one place. kSum: returns the terms of the mask's gradient.
template <bool kSum, class S, class T, class Place>
inline Vec<T> gradient(Place place, const S* grad, const S* local, const S* x, const S* identity, Vec<T> mask,
                       S* dlocal, S* dx) {
  const Vec<T> g = place.load(grad);
  if (dlocal != nullptr) place.store(dlocal, mask * g);
  if (!kSum && dx == nullptr) return Vec<T>{};
  const Vec<T> sum = place.load(x) + place.load(identity);
  const auto off = sum <= T(0);
  if (dx != nullptr) place.store(dx, off ? Vec<T>{} : (T(1) - mask) * g);
  if constexpr (!kSum) return Vec<T>{};
  return g * (place.load(local) - (off ? Vec<T>{} : sum));
}

template <class S, class T>
void gradient_row_impl(const S* grad, const S* local, const S* x, const S* identity, int64_t n, T mask, S* dlocal,
                       S* dx, T* dmask) {
  const Vec<T> m = broadcast(mask);
  if (dmask == nullptr) {
    each_vector<T>(0, n, [=](auto place) { gradient<false, S, T>(place, grad, local, x, identity, m, dlocal, dx); });
    return;
  }
  // Each lane adds up to 64 terms before it goes into the total: the rounding error does not grow with the row.
  constexpr int64_t kChunk = 64 * kLanes<T>;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = n - begin < kChunk ? n : begin + kChunk;
    Vec<T> sums{};
    each_vector<T>(begin, end, [=, &sums](auto place) {
      sums += place.fresh(gradient<true, S, T>(place, grad, local, x, identity, m, dlocal, dx));
    });
    total += static_cast<double>(sum_lanes<T>(sums));
  }
  *dmask = static_cast<T>(total);
}

template <class S, class T>
void gradient_channels_impl(const S* grad, const S* local, const S* x, const S* identity, const T* mask,
                            int64_t positions, int64_t channels, S* dlocal, S* dx, T* dmask) {
  if (dmask != nullptr) {
    for (int64_t c = 0; c < channels; ++c) dmask[c] = 0;
  }
  for (int64_t p = 0; p < positions; ++p) {
    const int64_t offset = p * channels;
    S* local_out = dlocal == nullptr ? nullptr : dlocal + offset;
    S* sum_out = dx == nullptr ? nullptr : dx + offset;
    if (dmask == nullptr) {
      each_vector<T>(0, channels, [=](auto place) {
        gradient<false, S, T>(place, grad + offset, local + offset, x + offset, identity + offset, place.load(mask),
                              local_out, sum_out);
      });
    } else {
      each_vector<T>(0, channels, [=](auto place) {
        const Vec<T> terms = gradient<true, S, T>(place, grad + offset, local + offset, x + offset, identity + offset,
                                                  place.load(mask), local_out, sum_out);
        place.store(dmask, place.load(dmask) + place.fresh(terms));
      });
    }
  }
}

}  // namespace

#define PYREID_DEFINE_MIX(S, T)                                                                                        \
  void mix_row(const S* local, const S* x, const S* identity, int64_t n, T mask, S* out) {                             \
    row_impl(local, x, identity, n, mask, out);                                                                        \
  }                                                                                                                    \
  void mix_channels(const S* local, const S* x, const S* identity, const T* mask, int64_t positions, int64_t channels, \
                    S* out) {                                                                                          \
    channels_impl(local, x, identity, mask, positions, channels, out);                                                 \
  }                                                                                                                    \
  void mix_gradient_row(const S* grad, const S* local, const S* x, const S* identity, int64_t n, T mask, S* dlocal,    \
                        S* dx, T* dmask) {                                                                             \
    gradient_row_impl(grad, local, x, identity, n, mask, dlocal, dx, dmask);                                           \
  }                                                                                                                    \
  void mix_gradient_channels(const S* grad, const S* local, const S* x, const S* identity, const T* mask,              \
                             int64_t positions, int64_t channels, S* dlocal, S* dx, T* dmask) {                        \
    gradient_channels_impl(grad, local, x, identity, mask, positions, channels, dlocal, dx, dmask);                    \
  }

PYREID_DEFINE_MIX(float, float)
PYREID_DEFINE_MIX(double, double)
PYREID_DEFINE_MIX(Half, float)
PYREID_DEFINE_MIX(BFloat16, float)
#undef PYREID_DEFINE_MIX

}  // namespace pyreid::cpu::PYREID_ISA
