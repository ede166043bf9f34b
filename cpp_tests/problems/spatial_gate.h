// Tests of the spatial_gate kernels against loops, for a backend that has them (problems/pairwise_distance.h).
#pragma once
#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "cpp_tests/check.h"
#include "cpp_tests/numbers.h"
#include "cpp_tests/problems/storage.h"

namespace pyreid::test {

struct GateShape {
  int64_t samples, channels, height, width;
  int64_t planes() const { return samples * channels; }
  int64_t positions() const { return height * width; }
};

template <class S, class T>
struct GateProblem {
  GateShape shape;
  T slope;
  std::vector<S> x, dlocal, davg, dmax;
  std::vector<T> weight1, weight2;

  template <class Backend>
  static GateProblem random(Backend, GateShape shape, double slope) {
    Random random(11);
    const auto stored = [&](int64_t count) {
      std::vector<S> all;
      for (const double value : random.values<double>(count, -2, 2)) all.push_back(store<S, Backend>(value));
      return all;
    };
    const int64_t planes = shape.planes(), values = planes * shape.positions();
    return {shape,
            static_cast<T>(slope),
            stored(values),
            stored(values),
            stored(planes),
            stored(planes),
            random.values<T>(shape.channels * 9),
            random.values<T>(shape.channels * 9)};
  }
};

// A number with a bound on the error that a kernel may make in it.
struct Bounded {
  Real value = 0, error = 0;
};
using BoundedPlane = std::vector<Bounded>;

// The longest sum in T: a thread's terms in a tile or a row, and then the lanes and warps of a block.
constexpr Real kLongestSum = 400;

// What the kernels compute of one plane, step by step. Each operation adds its rounding to the errors it inherits.
template <class T>
struct GatePlane {
  const GateShape& shape;
  Real slope;
  const T *weight1, *weight2;
  BoundedPlane x, h, hidden, gate, gate_slope, local;
  static constexpr Real kUnit = kRoundoff<T>;

  BoundedPlane convolve(const BoundedPlane& in, const T* weights, bool back) const {
    BoundedPlane out(in.size());
    for (int64_t r = 0; r < shape.height; ++r) {
      for (int64_t c = 0; c < shape.width; ++c) {
        Bounded& sum = out[r * shape.width + c];
        for_taps(r, c, [&](int64_t tap, int64_t at) {
          const Real w = weights[back ? 8 - tap : tap];
          sum.value += w * in[at].value;
          sum.error += std::fabs(w) * (in[at].error + 10 * kUnit * std::fabs(in[at].value));
        });
      }
    }
    return out;
  }

  // body(tap, position) for the neighbours of (r, c) that are in the plane
  template <class Body>
  void for_taps(int64_t r, int64_t c, const Body& body) const {
    for (int64_t tap = 0; tap < 9; ++tap) {
      const int64_t row = r + tap / 3 - 1, column = c + tap % 3 - 1;
      if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
      body(tap, row * shape.width + column);
    }
  }

  void forward() {
    h = convolve(x, weight1, false);
    const Real steepest = std::max(Real(1), std::fabs(slope));
    for (const Bounded& v : h) {
      const Real out = v.value > 0 ? v.value : slope * v.value;
      hidden.push_back({out, steepest * v.error + kUnit * std::fabs(out)});
    }
    const BoundedPlane a = convolve(hidden, weight2, false);
    for (size_t i = 0; i < a.size(); ++i) {
      const Real s = 1 / (1 + std::exp(-a[i].value)), d = s * (1 - s);
      // The derivatives of s and of s (1 - s) are at most 1/4 and 1/10; an exponential is within a few roundoffs.
      gate.push_back({s, a[i].error / 4 + 8 * kUnit * s});
      gate_slope.push_back({d, a[i].error / 10 + 12 * kUnit * d});
      const Real v = s * x[i].value;
      local.push_back(v < 0 ? Bounded{} : Bounded{v, gate[i].error * std::fabs(x[i].value) + kUnit * v});
    }
  }

  // upstream: the gradient of local with that of the pools. dweights gets 18 sums.
  BoundedPlane backward(const BoundedPlane& upstream, BoundedPlane& dweights) const {
    const size_t n = x.size();
    BoundedPlane direct(n), da(n);
    for (size_t i = 0; i < n; ++i) {
      if (x[i].value <= 0) continue;
      const auto [g, g_error] = upstream[i];
      direct[i] = {g * gate[i].value, std::fabs(g) * gate[i].error + gate[i].value * (g_error + kUnit * std::fabs(g))};
      const Real v = g * x[i].value * gate_slope[i].value;
      da[i] = {v, std::fabs(x[i].value) * (std::fabs(g) * gate_slope[i].error + gate_slope[i].value * g_error) +
                      4 * kUnit * std::fabs(v)};
    }
    BoundedPlane dh = convolve(da, weight2, true);
    for (size_t i = 0; i < n; ++i) {
      const Real dl = dh[i].value, factor = h[i].value > 0 ? 1 : slope;
      dh[i].value *= factor;
      dh[i].error = std::max(Real(1), std::fabs(slope)) * dh[i].error + kUnit * std::fabs(dh[i].value);
      if (std::fabs(h[i].value) <= h[i].error) dh[i].error += std::fabs(dl * (1 - slope));  // either side of the kink
    }
    dweights = BoundedPlane(18);
    for (int64_t r = 0; r < shape.height; ++r) {
      for (int64_t c = 0; c < shape.width; ++c) {
        const auto add = [&](Bounded& sum, const Bounded& a, const Bounded& b) {
          sum.value += a.value * b.value;
          sum.error += a.error * std::fabs(b.value) + std::fabs(a.value) * b.error +
                       kLongestSum * kUnit * std::fabs(a.value * b.value);
        };
        const int64_t at = r * shape.width + c;
        for_taps(r, c, [&](int64_t tap, int64_t other) {
          add(dweights[tap], dh[at], x[other]);
          add(dweights[9 + tap], da[at], hidden[other]);
        });
      }
    }
    BoundedPlane dx = convolve(dh, weight1, true);
    for (size_t i = 0; i < n; ++i) {
      dx[i].value += direct[i].value;
      dx[i].error += direct[i].error + kUnit * std::fabs(dx[i].value);
    }
    return dx;
  }
};

template <class S, class Backend>
void check_stored(S actual, const Bounded& expected) {
  const Real size = std::fabs(expected.value);
  // The smallest step of a half type is that of its subnormals.
  const Real rounding = storage_roundoff<S, Backend>() * (size + expected.error) +
                        (storage_roundoff<S, Backend>() > 0 ? Real(0x1p-24) : Real(1e-30));
  CHECK_CLOSE(load<Backend>(actual), expected.value, expected.error + rounding);
}

template <class S>
struct GateOutputs {
  std::vector<S> local, avg, max;
  std::vector<int64_t> argmax;
};

template <class S, class T, class Backend>
GateOutputs<S> run_gate(const GateProblem<S, T>& p) {
  const int64_t planes = p.shape.planes();
  auto [local, avg, max, argmax] = Backend::repeat([&] {
    const std::vector<S> unset(planes, store<S, Backend>(NAN));
    std::tuple out{std::vector<S>(p.x.size(), store<S, Backend>(NAN)), unset, unset, std::vector<int64_t>(planes, -1)};
    auto& [local, avg, max, argmax] = out;
    Backend::spatial_gate(p.x.data(), p.weight1.data(), p.weight2.data(), p.shape.samples, p.shape.channels,
                          p.shape.height, p.shape.width, p.slope, local.data(), avg.data(), max.data(), argmax.data());
    return out;
  });
  return {local, avg, max, argmax};
}

// Which gradients come in, and which are wanted.
struct GateUse {
  bool dlocal = true, davg = true, dmax = true, dx = true, dweights = true;
};

template <class S, class T, class Backend>
void check_gate(GateShape shape, double slope, GateUse use = {}) {
  const auto p = GateProblem<S, T>::random(Backend{}, shape, slope);
  const GateOutputs<S> out = run_gate<S, T, Backend>(p);
  const int64_t planes = shape.planes(), n = shape.positions();
  const auto [dx, partial, dweight1, dweight2] = Backend::repeat([&] {
    std::tuple out2{std::vector<S>(p.x.size(), store<S, Backend>(NAN)), unwritten<T>(planes * 18),
                    unwritten<T>(shape.channels * 9), unwritten<T>(shape.channels * 9)};
    auto& [dx, partial, dweight1, dweight2] = out2;
    Backend::spatial_gate_gradient(use.dlocal ? p.dlocal.data() : nullptr, use.davg ? p.davg.data() : nullptr,
                                   use.dmax ? p.dmax.data() : nullptr, p.x.data(), p.weight1.data(), p.weight2.data(),
                                   out.argmax.data(), shape.samples, shape.channels, shape.height, shape.width, p.slope,
                                   use.dx ? dx.data() : nullptr, use.dweights ? partial.data() : nullptr);
    if (use.dweights) {
      Backend::spatial_gate_weight_gradient(const_cast<const T*>(partial.data()), shape.samples, shape.channels,
                                            dweight1.data(), dweight2.data());
    }
    return out2;
  });

  BoundedPlane dweights(shape.channels * 18);
  for (int64_t i = 0; i < planes; ++i) {
    const int64_t channel = i % shape.channels;
    GatePlane<T> plane{shape, p.slope, &p.weight1[channel * 9], &p.weight2[channel * 9], {}, {}, {}, {}, {}, {}};
    for (int64_t k = 0; k < n; ++k) plane.x.push_back({load<Backend>(p.x[i * n + k]), 0});
    plane.forward();
    Bounded mean, largest;
    for (int64_t k = 0; k < n; ++k) {
      const Bounded& v = plane.local[k];
      check_stored<S, Backend>(out.local[i * n + k], v);
      mean.value += v.value / n;
      mean.error += (v.error + kLongestSum * kRoundoff<T> * v.value) / n;
      if (v.value > largest.value) largest = v;
    }
    check_stored<S, Backend>(out.avg[i], mean);
    check_stored<S, Backend>(out.max[i], largest);
    const int64_t at = out.argmax[i];
    CHECK(at >= 0 && at < n);
    CHECK_CLOSE(plane.local[at].value, largest.value, plane.local[at].error + largest.error);
    if (largest.value == 0) CHECK_EQUAL(at, 0);

    BoundedPlane upstream(n), dplane;
    for (int64_t k = 0; k < n; ++k) {
      const Real a = use.dlocal ? load<Backend>(p.dlocal[i * n + k]) : 0;
      const Real b = use.davg ? Real(load<Backend>(p.davg[i])) / n : 0;
      const Real c = use.dmax && k == at ? load<Backend>(p.dmax[i]) : 0;
      upstream[k] = {a + b + c, 3 * kRoundoff<T> * (std::fabs(a) + std::fabs(b) + std::fabs(c))};
    }
    const BoundedPlane expected = plane.backward(upstream, dplane);
    for (int64_t k = 0; k < n; ++k) {
      if (use.dx) check_stored<S, Backend>(dx[i * n + k], expected[k]);
    }
    for (int64_t k = 0; k < 18; ++k) {
      dweights[channel * 18 + k].value += dplane[k].value;
      dweights[channel * 18 + k].error += dplane[k].error + 2 * kRoundoff<T> * std::fabs(dplane[k].value);
    }
  }
  if (!use.dweights) return;
  for (int64_t c = 0; c < shape.channels; ++c) {
    for (int64_t k = 0; k < 9; ++k) {
      CHECK_CLOSE(dweight1[c * 9 + k], dweights[c * 18 + k].value, dweights[c * 18 + k].error);
      CHECK_CLOSE(dweight2[c * 9 + k], dweights[c * 18 + 9 + k].value, dweights[c * 18 + 9 + k].error);
    }
  }
}

// Planes of a pixel, a row and a column; smaller and larger than vectors, with more planes than a group or than blocks;
// planes for a warp each, whole in shared memory, and in tiles of rows and of columns, with rows that fit packs or not.
template <class S, class T, class Backend>
void check_gate_of_random_planes() {
  constexpr GateShape kShapes[] = {{1, 1, 1, 1},    {2, 5, 1, 9},    {3, 3, 12, 1},  {3, 9, 7, 7},
                                   {1, 21, 11, 11}, {1, 3, 16, 8},   {2, 2, 3, 40},  {1, 6, 19, 17},
                                   {1, 2, 28, 28},  {1, 2, 24, 32},  {1, 2, 90, 32}, {1, 1, 75, 41},
                                   {1, 2, 6, 129},  {1, 1, 50, 100}, {2, 1, 300, 2}, {1, 1, 3, 400}};
  for (const GateShape& shape : kShapes) check_gate<S, T, Backend>(shape, 0.01);
}

template <class S, class T, class Backend>
void check_gate_uses() {
  constexpr GateUse kUses[] = {{true, false, false, true, true}, {false, true, false, true, true},
                               {false, false, true, true, true}, {false, false, false, true, true},
                               {true, true, true, false, true},  {true, true, true, true, false}};
  for (const GateUse& use : kUses) {
    check_gate<S, T, Backend>({2, 3, 5, 6}, 0.01, use);
    check_gate<S, T, Backend>({1, 2, 60, 33}, 0.01, use);
  }
}

template <class S, class T, class Backend>
void check_gate_slopes() {
  for (const double slope : {0.0, 1.0, -0.5, 3.0}) {
    check_gate<S, T, Backend>({2, 3, 5, 6}, slope);
    check_gate<S, T, Backend>({1, 1, 20, 33}, slope);
  }
}

// Ties go to the first position, whichever lanes, patches and tiles they meet in; NaN to the first NaN. Filters of
// zeros make every gate 1/2.
template <class S, class T, class Backend>
void check_gate_maxima() {
  constexpr GateShape kShapes[] = {{1, 5, 4, 5}, {1, 5, 20, 40}, {1, 5, 100, 32}, {1, 5, 30, 130}};
  for (const GateShape& shape : kShapes) {
    auto p = GateProblem<S, T>::random(Backend{}, shape, 0.01);
    std::fill(p.weight1.begin(), p.weight1.end(), T(0));
    std::fill(p.weight2.begin(), p.weight2.end(), T(0));
    const int64_t n = shape.positions();
    Random random(13);
    std::vector<int64_t> first;
    for (int64_t i = 0; i < shape.channels; ++i) {
      S* plane = p.x.data() + i * n;
      const int64_t a = random.below(n), b = random.below(n);
      for (int64_t k = 0; k < n; ++k) plane[k] = store<S, Backend>(i == 0 ? -1 : random.uniform());
      // 0: no value is above 0; 1 and 2: two equal maxima; 3: NaN and a larger value; 4: two NaNs
      const double at_a = i == 0 ? -2 : i < 3 ? 3 : NAN, at_b = i == 0 ? -2 : i < 4 ? 3 : NAN;
      plane[b] = store<S, Backend>(at_b);
      plane[a] = store<S, Backend>(at_a);
      // Two convolutions spread NaN to all that is two rows and columns away, whatever the filters.
      const auto spread = [&](int64_t at) {
        const int64_t row = std::max<int64_t>(at / shape.width - 2, 0),
                      column = std::max<int64_t>(at % shape.width - 2, 0);
        return row * shape.width + column;
      };
      first.push_back(i == 0 ? 0 : i < 3 ? std::min(a, b) : i == 3 ? spread(a) : std::min(spread(a), spread(b)));
    }
    const GateOutputs<S> out = run_gate<S, T, Backend>(p);
    for (int64_t i = 0; i < shape.channels; ++i) {
      CHECK_EQUAL(out.argmax[i], first[i]);
      const double expected = i == 0 ? 0 : i < 3 ? 1.5 : NAN;
      CHECK_CLOSE(load<Backend>(out.max[i]), expected, 0);
      CHECK_CLOSE(load<Backend>(out.local[i * n + first[i]]), expected, 0);
      CHECK_EQUAL(std::isnan(load<Backend>(out.avg[i])), i >= 3);
    }
  }
}

// Gates at both ends: the exponential neither overflows nor makes NaN.
template <class T, class Backend>
void check_gate_extremes() {
  auto p = GateProblem<T, T>::random(Backend{}, {1, 2, 6, 5}, 0.01);
  std::fill(p.x.begin(), p.x.end(), T(1));
  for (int64_t k = 0; k < 9; ++k) {
    p.weight1[k] = p.weight1[9 + k] = T(k == 4);
    p.weight2[k] = T(k == 4 ? 1e30 : 0);
    p.weight2[9 + k] = T(k == 4 ? -1e30 : 0);
  }
  const GateOutputs<T> out = run_gate<T, T, Backend>(p);
  for (int64_t k = 0; k < 60; ++k) CHECK_EQUAL(out.local[k], T(k < 30));
  CHECK_EQUAL(out.avg[0], T(1));
  CHECK_EQUAL(out.max[1], T(0));
}

template <class Backend>
void check_gate_of_nothing() {
  check_gate<float, float, Backend>({0, 3, 2, 2}, 0.01, {true, true, true, true, false});
  check_gate<float, float, Backend>({0, 3, 2, 2}, 0.01);
  check_gate<float, float, Backend>({3, 0, 2, 2}, 0.01);
}

#define PYREID_TEST_SPATIAL_GATE(Backend)                                                                        \
  TEST(planes_of_float32) { ::pyreid::test::check_gate_of_random_planes<float, float, Backend>(); }              \
  TEST(planes_of_float64) { ::pyreid::test::check_gate_of_random_planes<double, double, Backend>(); }            \
  TEST(planes_of_float16) { ::pyreid::test::check_gate_of_random_planes<Backend::Half, float, Backend>(); }      \
  TEST(planes_of_bfloat16) { ::pyreid::test::check_gate_of_random_planes<Backend::BFloat16, float, Backend>(); } \
  TEST(absent_and_unwanted) { ::pyreid::test::check_gate_uses<float, float, Backend>(); }                        \
  TEST(slopes) {                                                                                                 \
    ::pyreid::test::check_gate_slopes<float, float, Backend>();                                                  \
    ::pyreid::test::check_gate_slopes<double, double, Backend>();                                                \
  }                                                                                                              \
  TEST(maxima) {                                                                                                 \
    ::pyreid::test::check_gate_maxima<float, float, Backend>();                                                  \
    ::pyreid::test::check_gate_maxima<double, double, Backend>();                                                \
    ::pyreid::test::check_gate_maxima<Backend::Half, float, Backend>();                                          \
  }                                                                                                              \
  TEST(extremes) {                                                                                               \
    ::pyreid::test::check_gate_extremes<float, Backend>();                                                       \
    ::pyreid::test::check_gate_extremes<double, Backend>();                                                      \
  }                                                                                                              \
  TEST(no_planes) { ::pyreid::test::check_gate_of_nothing<Backend>(); }

}  // namespace pyreid::test
