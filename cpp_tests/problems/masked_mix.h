// Tests of the masked_mix kernels against loops, for a backend that has them (problems/pairwise_distance.h).
#pragma once
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "cpp_tests/problems/storage.h"
#include "csrc/masked_mix.h"

namespace pyreid::test {

// Feature maps that begin `shift` elements behind an aligned address.
template <class S, class T>
struct MixProblem {
  MixShape shape;
  int64_t shift = 0;
  std::vector<S> grad, local, x, identity;
  std::vector<T> mask;

  template <class Backend>
  static MixProblem random(Backend, MixShape shape, int64_t shift) {
    MixProblem problem{shape, shift, {}, {}, {}, {}, {}};
    Random random(11);
    for (auto* values : {&problem.grad, &problem.local, &problem.x, &problem.identity}) {
      for (int64_t i = 0; i < shape.elements() + shift; ++i) {
        values->push_back(store<S, Backend>(4 * random.uniform() - 2));
      }
    }
    problem.mask = random.values<T>(shape.mask_per_sample ? shape.samples * shape.channels : shape.channels, 0, 1);
    return problem;
  }
  int64_t at(int64_t sample, int64_t channel, int64_t position) const {
    return shift + (shape.channels_last ? (sample * shape.positions + position) * shape.channels + channel
                                        : (sample * shape.channels + channel) * shape.positions + position);
  }
  int64_t mask_at(int64_t sample, int64_t channel) const {
    return (shape.mask_per_sample ? sample * shape.channels : 0) + channel;
  }
};

template <class S, class T, class Backend>
std::vector<S> mix_of(const MixProblem<S, T>& problem) {
  return Backend::repeat([&] {
    std::vector<S> out(problem.x.size(), store<S, Backend>(NAN));
    const auto behind = [&](const std::vector<S>& values) { return values.data() + problem.shift; };
    Backend::masked_mix(behind(problem.local), behind(problem.x), behind(problem.identity),
                        static_cast<const T*>(problem.mask.data()), problem.shape, out.data() + problem.shift);
    return out;
  });
}

template <class S, class T>
struct MixGradients {
  std::vector<S> dlocal, dx;
  std::vector<T> dmask;
};

template <class S, class T, class Backend>
MixGradients<S, T> mix_gradients_of(const MixProblem<S, T>& problem, bool for_local, bool for_sum, bool for_mask) {
  const MixShape shape = problem.shape;
  const auto [dlocal, dx, dmask] = Backend::repeat([&] {
    std::tuple out{std::vector<S>(for_local ? problem.x.size() : 0, store<S, Backend>(NAN)),
                   std::vector<S>(for_sum ? problem.x.size() : 0, store<S, Backend>(NAN)),
                   unwritten<T>(for_mask ? static_cast<int64_t>(problem.mask.size()) : 0)};
    auto& [dlocal, dx, dmask] = out;
    std::vector<T> partials = unwritten<T>(shape.samples * shape.chunks() * shape.channels);
    const auto behind = [&](const std::vector<S>& values) { return values.data() + problem.shift; };
    Backend::masked_mix_gradient(behind(problem.grad), behind(problem.local), behind(problem.x),
                                 behind(problem.identity), static_cast<const T*>(problem.mask.data()), shape,
                                 for_local ? dlocal.data() + problem.shift : nullptr,
                                 for_sum ? dx.data() + problem.shift : nullptr, for_mask ? partials.data() : nullptr);
    if (for_mask) Backend::masked_mix_mask_gradient(static_cast<const T*>(partials.data()), shape, dmask.data());
    return out;
  });
  return {dlocal, dx, dmask};
}

// Every product, sum and difference has one rounding, relative to its own size: a handful for an element. A sum over
// positions adds at most 64 terms, or every 256th of a long row, one after the other, and then about 16 partial sums.
template <class S, class T, class Backend>
void check_mix(const MixProblem<S, T>& problem, bool for_local, bool for_sum, bool for_mask) {
  const MixShape shape = problem.shape;
  const std::vector<S> out = mix_of<S, T, Backend>(problem);
  const auto gradients = mix_gradients_of<S, T, Backend>(problem, for_local, for_sum, for_mask);
  std::vector<Real> dmask(problem.mask.size(), 0), sizes = dmask;
  constexpr double kStorage = storage_roundoff<S, Backend>(), kSubnormal = kIsHalf<S, Backend> ? 0x1p-25 : 0;
  const auto check_one = [&](S actual, Real expected, Real size) {
    const double scale = static_cast<double>(size), value = std::fabs(static_cast<double>(expected));
    CHECK_CLOSE(load<Backend>(actual), expected, 8 * kRoundoff<T> * scale + kStorage * value + kSubnormal);
  };
  for (int64_t n = 0; n < shape.samples; ++n) {
    for (int64_t c = 0; c < shape.channels; ++c) {
      const int64_t m = problem.mask_at(n, c);
      const Real mask = problem.mask[m];
      for (int64_t p = 0; p < shape.positions; ++p) {
        const int64_t i = problem.at(n, c, p);
        const Real g = load<Backend>(problem.grad[i]), l = load<Backend>(problem.local[i]);
        const Real sum = Real(load<Backend>(problem.x[i])) + load<Backend>(problem.identity[i]);
        const Real global = sum > 0 ? sum : 0;
        check_one(out[i], mask * l + (1 - mask) * global, mask * std::fabs(l) + (1 - mask) * global);
        if (for_local) check_one(gradients.dlocal[i], mask * g, mask * std::fabs(g));
        if (for_sum) check_one(gradients.dx[i], sum > 0 ? (1 - mask) * g : 0, std::fabs((1 - mask) * g));
        dmask[m] += g * (l - global);
        sizes[m] += std::fabs(g) * (std::fabs(l) + global);
      }
    }
  }
  const double roundings = 96 + static_cast<double>(shape.positions) / 256;
  for (size_t m = 0; for_mask && m < dmask.size(); ++m) {
    CHECK_CLOSE(gradients.dmask[m], dmask[m], roundings * kRoundoff<T> * static_cast<double>(sizes[m]));
  }
}

template <class Backend, class Check>
void for_mix_shapes(const Check& check) {
  // Channels that fill packs and that do not, and more than a block has columns; fewer positions than a warp has lanes,
  // more than 1024, and more than a chunk; more rows, tasks and sums than blocks
  constexpr int64_t kShapes[][3] = {{1, 1, 1},   {3, 5, 49},   {2, 16, 129}, {2, 3, 1037}, {2, 8, 33},
                                    {1, 600, 3}, {12, 200, 2}, {0, 4, 9},    {3, 0, 9},    {2, 3, 0}};
  for (const auto& [samples, channels, positions] : kShapes) {
    for (const bool channels_last : {false, true}) {
      for (const bool mask_per_sample : {false, true}) {
        check(MixShape{samples, channels, positions, channels_last, mask_per_sample});
      }
    }
  }
}

template <class S, class T, class Backend>
void check_mix_of_random_maps() {
  for_mix_shapes<Backend>([](MixShape shape) {
    for (const int64_t shift : {0, 1}) {
      check_mix<S, T, Backend>(MixProblem<S, T>::random(Backend{}, shape, shift), true, true, true);
    }
  });
  for (const bool channels_last : {false, true}) {
    // more elements than one thread takes
    const MixShape large{2, 40, 1037, channels_last, false};
    check_mix<S, T, Backend>(MixProblem<S, T>::random(Backend{}, large, 0), true, true, true);
    const auto problem = MixProblem<S, T>::random(Backend{}, MixShape{2, 8, 67, channels_last, true}, 0);
    for (int wanted = 0; wanted < 7; ++wanted) {
      check_mix<S, T, Backend>(problem, wanted & 1, wanted & 2, wanted & 4);
    }
  }
}

// A mask of 0 or 1 hands one side through, to the bit; NaN reaches the result and the gradients of its place.
template <class S, class T, class Backend>
void check_mix_at_both_ends() {
  for (const bool channels_last : {false, true}) {
    auto problem = MixProblem<S, T>::random(Backend{}, MixShape{2, 9, 37, channels_last, true}, 0);
    for (size_t m = 0; m < problem.mask.size(); ++m) problem.mask[m] = static_cast<T>(m % 2);
    problem.x[0] = store<S, Backend>(std::numeric_limits<double>::quiet_NaN());
    const std::vector<S> out = mix_of<S, T, Backend>(problem);
    const auto gradients = mix_gradients_of<S, T, Backend>(problem, true, true, true);
    CHECK(std::isnan(load<Backend>(out[0])));
    CHECK(std::isnan(static_cast<double>(gradients.dmask[0])));
    CHECK_EQUAL(load<Backend>(gradients.dx[0]), load<Backend>(problem.grad[0]));
    for (int64_t n = 0; n < 2; ++n) {
      for (int64_t c = 0; c < 9; ++c) {
        for (int64_t p = 0; p < 37; ++p) {
          const int64_t i = problem.at(n, c, p);
          if (i == 0) continue;
          const T sum =
              static_cast<T>(load<Backend>(problem.x[i])) + static_cast<T>(load<Backend>(problem.identity[i]));
          const double g = load<Backend>(problem.grad[i]);
          const bool is_local = problem.mask[problem.mask_at(n, c)] == 1;
          const S expected = is_local ? problem.local[i] : store<S, Backend>(sum > 0 ? sum : 0);
          CHECK_EQUAL(load<Backend>(out[i]), load<Backend>(expected));
          CHECK_EQUAL(load<Backend>(gradients.dlocal[i]), is_local ? g : 0);
          CHECK_EQUAL(load<Backend>(gradients.dx[i]), is_local || sum <= 0 ? 0 : g);
        }
      }
    }
  }
}

#define PYREID_TEST_MASKED_MIX(Backend)                                                                     \
  TEST(maps_of_float32) { ::pyreid::test::check_mix_of_random_maps<float, float, Backend>(); }              \
  TEST(maps_of_float64) { ::pyreid::test::check_mix_of_random_maps<double, double, Backend>(); }            \
  TEST(maps_of_float16) { ::pyreid::test::check_mix_of_random_maps<Backend::Half, float, Backend>(); }      \
  TEST(maps_of_bfloat16) { ::pyreid::test::check_mix_of_random_maps<Backend::BFloat16, float, Backend>(); } \
  TEST(both_ends_of_the_mask) {                                                                             \
    ::pyreid::test::check_mix_at_both_ends<float, float, Backend>();                                        \
    ::pyreid::test::check_mix_at_both_ends<double, double, Backend>();                                      \
    ::pyreid::test::check_mix_at_both_ends<Backend::Half, float, Backend>();                                \
    ::pyreid::test::check_mix_at_both_ends<Backend::BFloat16, float, Backend>();                            \
  }

}  // namespace pyreid::test
