// A group of planes streams through rings of a few rows, each row a vector per column and a column of zeros at either
// end. A stage of the computation runs a row behind the stage it reads from, so a row is used while it is in the cache,
// whatever the height. With a plane in each lane there are no edges within vectors and no sums across lanes, and narrow
// planes fill vectors as well as wide ones do.
#include "csrc/cpu/simd/spatial_gate.h"

#include "csrc/cpu/simd/half.h"
#include "csrc/cpu/simd/math.h"
#include "csrc/cpu/simd/transpose.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {
namespace {

constexpr int64_t kTaps = 9;
// Rows are transposed in batches of at least so many positions, to read runs of memory and to have few odd ends.
constexpr int64_t kBatchPositions = 128;
// Sums in T take so many terms, or a row's more, before they go into totals in double.
constexpr int64_t kTermsPerSum = 64;
constexpr int64_t kColumnsPerSum = 256;
// A group of small planes is read in jumps that the hardware does not foresee: the next one is fetched into the cache
// meanwhile, if it has room for so many bytes.
constexpr int64_t kPrefetchBytes = 1 << 17;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline int64_t batch_rows(int64_t height, int64_t width) {
  return smaller(height, (kBatchPositions + width - 1) / width);
}

template <class T>
inline int64_t row_size(int64_t width) {
  return (width + 2) * kLanes<T>;
}

// The planes of a group. Lanes without a plane of their own compute the last one again.
template <class S>
struct Planes {
  const S* start[kLanes<Compute<S>>];
  int64_t ahead;  // from a value to the one that the next group has in its place, or 0
  Planes(const S* x, int64_t first, int64_t count, int64_t positions) {
    const int64_t group = kLanes<Compute<S>> * positions;
    ahead = group * static_cast<int64_t>(sizeof(S)) <= kPrefetchBytes ? group : 0;
    for (int64_t l = 0; l < kLanes<Compute<S>>; ++l) start[l] = x + (first + smaller(l, count - 1)) * positions;
  }
};

// Positions [offset, offset + n) of the planes -> a vector for each
template <class S, class T = Compute<S>>
void load_positions(const Planes<S>& planes, int64_t offset, int64_t n, T* to) {
  constexpr int64_t kStep = kLanes<T>;
  Vec<T> block[kStep];
  if (n < kStep) {
    for (int64_t l = 0; l < kStep; ++l) block[l] = load_some(planes.start[l] + offset, n);
    transpose<T>(block);
    for (int64_t i = 0; i < n; ++i) store(to + i * kStep, block[i]);
    return;
  }
  for (int64_t i = 0; i < n; i += kStep) {
    const int64_t begin = smaller(i, n - kStep);  // the last block overlaps the one before
#pragma GCC unroll 16
    for (int64_t l = 0; l < kStep; ++l) {
      const S* from = planes.start[l] + offset + begin;
      block[l] = load_values(from);
      if (planes.ahead != 0) __builtin_prefetch(from + planes.ahead);
    }
    transpose<T>(block);
#pragma GCC unroll 16
    for (int64_t l = 0; l < kStep; ++l) store(to + (begin + l) * kStep, block[l]);
  }
}

// The reverse, for the first `count` lanes; `to` is the start of the first plane.
template <class S, class T>
void store_positions(const T* from, int64_t offset, int64_t n, int64_t count, int64_t positions, S* to) {
  constexpr int64_t kStep = kLanes<T>;
  Vec<T> block[kStep];
  if (n < kStep) {
    for (int64_t i = 0; i < kStep; ++i) block[i] = load(from + smaller(i, n - 1) * kStep);
    transpose<T>(block);
    for (int64_t l = 0; l < count; ++l) store_some(to + l * positions + offset, block[l], n);
    return;
  }
  for (int64_t i = 0; i < n; i += kStep) {
    const int64_t begin = smaller(i, n - kStep);
#pragma GCC unroll 16
    for (int64_t l = 0; l < kStep; ++l) block[l] = load(from + (begin + l) * kStep);
    transpose<T>(block);
    S* out = to + offset + begin;
    if (count == kStep) {
#pragma GCC unroll 16
      for (int64_t l = 0; l < kStep; ++l) store_values(out + l * positions, block[l]);
    } else {
      for (int64_t l = 0; l < count; ++l) store_values(out + l * positions, block[l]);
    }
  }
}

template <class T>
inline void zero(T* p, int64_t n) {
  memset(p, 0, static_cast<size_t>(n) * sizeof(T));
}

// The last kRows rows of a plane. Row -1 and the row after the last one are zero, as are the columns at either end.
template <class T, int64_t kRows>
struct Ring {
  T* rows;
  int64_t size;
  Ring(T*& scratch, int64_t width) : rows(scratch), size(row_size<T>(width)) {
    scratch += kRows * size;
    zero(rows, kRows * size);
  }
  static int64_t values(int64_t width) { return kRows * row_size<T>(width); }
  T* operator[](int64_t row) const { return rows + (row + kRows) % kRows * size; }
  void end(int64_t row) const { zero((*this)[row], size); }
};

// Rows of the input in batches, or zeros for a tensor that is absent.
template <class S, class T = Compute<S>>
struct Source {
  const Planes<S>* planes;
  T* staged;
  int64_t height, width, batch;
  Source(const Planes<S>* planes, T*& scratch, int64_t height, int64_t width)
      : planes(planes), staged(scratch), height(height), width(width), batch(batch_rows(height, width)) {
    scratch += batch * width * kLanes<T>;
    if (planes == nullptr) zero(staged, batch * width * kLanes<T>);
  }
  // Rows must be asked for in order.
  const T* row(int64_t r) const {
    if (planes != nullptr && r % batch == 0) {
      load_positions(*planes, r * width, smaller(batch, height - r) * width, staged);
    }
    return staged + r % batch * width * kLanes<T>;
  }
};

// Rows of the output: row(r) is where to write, done(r) is called after that.
template <class S, class T = Compute<S>>
struct Sink {
  S* to;
  T* staged;
  int64_t count, height, width, batch;
  Sink(S* to, T*& scratch, int64_t count, int64_t height, int64_t width)
      : to(to), staged(scratch), count(count), height(height), width(width), batch(batch_rows(height, width)) {
    scratch += batch * width * kLanes<T>;
  }
  T* row(int64_t r) const { return staged + r % batch * width * kLanes<T>; }
  void done(int64_t r) const {
    if ((r + 1) % batch != 0 && r + 1 != height) return;
    const int64_t begin = r / batch * batch;
    store_positions(staged, begin * width, (r + 1 - begin) * width, count, height * width, to);
  }
};

template <class T>
struct Filter {
  Vec<T> tap[kTaps];
};

// A tap of every lane's filter in each vector
template <class T>
Filter<T> load_filter(const T* weights, int64_t first, int64_t count, int64_t channels) {
  constexpr int64_t kStep = kLanes<T>, kWhole = kTaps / kStep * kStep, kRest = kTaps - kWhole;
  const T* start[kStep];
  int64_t channel = first % channels;
  for (int64_t l = 0; l < kStep; ++l) {
    start[l] = weights + channel * kTaps;
    if (l + 1 < count) channel = channel + 1 == channels ? 0 : channel + 1;
  }
  Filter<T> filter;
  Vec<T> block[kStep];
  for (int64_t k = 0; k < kWhole; k += kStep) {
    for (int64_t l = 0; l < kStep; ++l) block[l] = load(start[l] + k);
    transpose<T>(block);
    for (int64_t i = 0; i < kStep; ++i) filter.tap[k + i] = block[i];
  }
  for (int64_t l = 0; l < kStep; ++l) block[l] = load_partial(start[l] + kWhole, kRest, T(0));
  transpose<T>(block);
  for (int64_t i = 0; i < kRest; ++i) filter.tap[kWhole + i] = block[i];
  return filter;
}

// The 3x3 neighbourhood of column c, in rows that have a column of zeros before column 0.
template <class T>
struct Window {
  Vec<T> value[kTaps];
  Window(const T* above, const T* middle, const T* below, int64_t c) {
#pragma GCC unroll 3
    for (int64_t j = 0; j < 3; ++j) {
      value[j] = load(above + (c + j) * kLanes<T>);
      value[3 + j] = load(middle + (c + j) * kLanes<T>);
      value[6 + j] = load(below + (c + j) * kLanes<T>);
    }
  }
  Vec<T> convolve(const Filter<T>& filter) const {
    Vec<T> sum = value[0] * filter.tap[0];
#pragma GCC unroll 8
    for (int64_t k = 1; k < kTaps; ++k) sum += value[k] * filter.tap[k];
    return sum;
  }
  // The filter turned round: the gradient of a convolution by its input
  Vec<T> convolve_back(const Filter<T>& filter) const {
    Vec<T> sum = value[0] * filter.tap[kTaps - 1];
#pragma GCC unroll 8
    for (int64_t k = 1; k < kTaps; ++k) sum += value[k] * filter.tap[kTaps - 1 - k];
    return sum;
  }
};

// 1 / (1 + e^-a) as s, and its derivative s (1 - s), without cancellation
template <class T>
struct Sigmoid {
  Vec<T> value, slope;
  explicit Sigmoid(Vec<T> a) {
    const Vec<T> e = exp_nonpositive<T>(a < Vec<T>{} ? a : -a);
    const Vec<T> r = T(1) / (e + T(1));
    value = a < Vec<T>{} ? e * r : r;
    slope = e * r * r;
  }
};

// Sums in T of a bounded number of terms for each lane, which go into totals in double.
template <class T, int64_t kCount>
struct Sums {
  T sums[kCount * kLanes<T>] = {};
  double totals[kCount * kLanes<T>] = {};
  int64_t terms = 0;
  void count(int64_t added) {
    terms += added;
    if (terms >= kTermsPerSum) flush();
  }
  void flush() {
    for (int64_t i = 0; i < kCount * kLanes<T>; ++i) totals[i] += static_cast<double>(sums[i]);
    zero(sums, kCount * kLanes<T>);
    terms = 0;
  }
};

template <class T>
inline Vec<T> leaky(Vec<T> h, T slope) {
  return h > Vec<T>{} ? h : h * slope;
}

template <class S, class T>
void gate_group_impl(const S* x, const T* weight1, const T* weight2, int64_t first, int64_t count, int64_t channels,
                     int64_t height, int64_t width, T slope, T* scratch, S* local, S* avg, S* max, int64_t* argmax) {
  constexpr int64_t kStep = kLanes<T>;
  const int64_t positions = height * width;
  const Planes<S> planes(x, first, count, positions);
  const Filter<T> filter1 = load_filter(weight1, first, count, channels);
  const Filter<T> filter2 = load_filter(weight2, first, count, channels);
  const Ring<T, 3> inputs(scratch, width), hidden(scratch, width);
  const Source<S> source(&planes, scratch, height, width);
  const Sink<S> sink(local + first * positions, scratch, count, height, width);

  Sums<T, 1> sum;
  Vec<T> best = broadcast(T(-1));  // less than all that ReLU leaves
  IntVec<T> best_position{}, position{};
  for (int64_t t = 0; t < height + 2; ++t) {
    if (t < height) {
      memcpy(inputs[t] + kStep, source.row(t), static_cast<size_t>(width * kStep) * sizeof(T));
    } else if (t == height) {
      inputs.end(t);
    }
    if (const int64_t r = t - 1; r >= 0 && r < height) {
      const T *above = inputs[r - 1], *middle = inputs[r], *below = inputs[r + 1];
      T* out = hidden[r] + kStep;
      for (int64_t c = 0; c < width; ++c) {
        store(out + c * kStep, leaky<T>(Window<T>(above, middle, below, c).convolve(filter1), slope));
      }
    } else if (r == height) {
      hidden.end(r);
    }
    if (const int64_t r = t - 2; r >= 0) {
      const T *above = hidden[r - 1], *middle = hidden[r], *below = hidden[r + 1], *in = inputs[r] + kStep;
      T* out = sink.row(r);
      for (int64_t begin = 0; begin < width; begin += kColumnsPerSum) {
        const int64_t end = smaller(width, begin + kColumnsPerSum);
        Vec<T> partial = load(sum.sums);
        for (int64_t c = begin; c < end; ++c) {
          const Sigmoid<T> s(Window<T>(above, middle, below, c).convolve(filter2));
          const Vec<T> product = s.value * load(in + c * kStep);
          const Vec<T> v = product < Vec<T>{} ? Vec<T>{} : product;  // keeps NaN
          store(out + c * kStep, v);
          partial += v;
          const auto better = (v > best) | ((v != v) & (best == best));
          best = better ? v : best;
          best_position = better ? position : best_position;
          position += 1;
        }
        store(sum.sums, partial);
        sum.count(end - begin);
      }
      sink.done(r);
    }
  }
  sum.flush();
  Vec<T> mean{};
  for (int64_t l = 0; l < kStep; ++l) mean[l] = static_cast<T>(sum.totals[l] / static_cast<double>(positions));
  for (int64_t l = 0; l < count; ++l) argmax[first + l] = static_cast<int64_t>(best_position[l]);
  if (count == kStep) {
    store_values(avg + first, mean);
    store_values(max + first, best);
  } else {
    store_some(avg + first, mean, count);
    store_some(max + first, best, count);
  }
}

// A row of a first gradient and of the sums for a filter's: sum_k += value of tap k * gradient.
template <class T>
struct TapSums {
  Vec<T> sum[kTaps];
  explicit TapSums(const T* p) {
    for (int64_t k = 0; k < kTaps; ++k) sum[k] = load(p + k * kLanes<T>);
  }
  void add(const Window<T>& window, Vec<T> gradient) {
#pragma GCC unroll 9
    for (int64_t k = 0; k < kTaps; ++k) sum[k] += window.value[k] * gradient;
  }
  void write(T* p) const {
    for (int64_t k = 0; k < kTaps; ++k) store(p + k * kLanes<T>, sum[k]);
  }
};

template <class S, class T = Compute<S>>
inline Vec<T> load_pooled(const S* p, int64_t first, int64_t count) {
  if (p == nullptr) return Vec<T>{};
  return count == kLanes<T> ? load_values(p + first) : load_some(p + first, count);
}

template <class S, class T>
void gate_gradient_group_impl(const S* dlocal, const S* davg, const S* dmax, const S* x, const T* weight1,
                              const T* weight2, const int64_t* argmax, int64_t first, int64_t count, int64_t channels,
                              int64_t height, int64_t width, T slope, T* scratch, S* dx, T* dweights) {
  constexpr int64_t kStep = kLanes<T>;
  const int64_t positions = height * width;
  const Planes<S> planes(x, first, count, positions);
  const Planes<S> gradients(dlocal == nullptr ? x : dlocal, first, count, positions);
  const Filter<T> filter1 = load_filter(weight1, first, count, channels);
  const Filter<T> filter2 = load_filter(weight2, first, count, channels);
  const Ring<T, 5> inputs(scratch, width);
  // h, leaky(h), dloss/da, dloss/dx without the way through h, dloss/dh
  const Ring<T, 3> plain(scratch, width), hidden(scratch, width), dgate(scratch, width), direct(scratch, width),
      dplain(scratch, width);
  const Source<S> source(&planes, scratch, height, width);
  const Source<S> upstream(dlocal == nullptr ? nullptr : &gradients, scratch, height, width);
  const Sink<S> sink(dx == nullptr ? nullptr : dx + first * positions, scratch, count, height, width);

  const Vec<T> mean_gradient = load_pooled(davg, first, count) / static_cast<T>(positions);
  const Vec<T> max_gradient = load_pooled(dmax, first, count);
  IntVec<T> max_position = IntVec<T>{} - 1, position{};
  for (int64_t l = 0; l < count; ++l) max_position[l] = static_cast<Int<T>>(argmax[first + l]);

  Sums<T, kTaps> sums1, sums2;
  for (int64_t t = 0; t < height + 4; ++t) {
    if (t < height) {
      memcpy(inputs[t] + kStep, source.row(t), static_cast<size_t>(width * kStep) * sizeof(T));
    } else if (t == height) {
      inputs.end(t);
    }
    if (const int64_t r = t - 1; r >= 0 && r < height) {
      const T *above = inputs[r - 1], *middle = inputs[r], *below = inputs[r + 1];
      T *h_out = plain[r] + kStep, *out = hidden[r] + kStep;
      for (int64_t c = 0; c < width; ++c) {
        const Vec<T> h = Window<T>(above, middle, below, c).convolve(filter1);
        store(h_out + c * kStep, h);
        store(out + c * kStep, leaky<T>(h, slope));
      }
    } else if (r == height) {
      hidden.end(r);
    }
    if (const int64_t r = t - 2; r >= 0 && r < height) {
      const T *above = hidden[r - 1], *middle = hidden[r], *below = hidden[r + 1], *in = inputs[r] + kStep;
      const T* grad = upstream.row(r);
      T *out = dgate[r] + kStep, *direct_out = direct[r] + kStep;
      for (int64_t begin = 0; begin < width; begin += kColumnsPerSum) {
        const int64_t end = smaller(width, begin + kColumnsPerSum);
        TapSums<T> taps(sums2.sums);
        for (int64_t c = begin; c < end; ++c) {
          const Window<T> window(above, middle, below, c);
          const Sigmoid<T> s(window.convolve(filter2));
          const Vec<T> v = load(in + c * kStep), product = s.value * v;
          const Vec<T> at_max = position == max_position ? max_gradient : Vec<T>{};
          const Vec<T> g = product <= Vec<T>{} ? Vec<T>{} : load(grad + c * kStep) + mean_gradient + at_max;
          const Vec<T> da = g * v * s.slope;
          store(direct_out + c * kStep, g * s.value);
          store(out + c * kStep, da);
          taps.add(window, da);
          position += 1;
        }
        taps.write(sums2.sums);
        sums2.count(end - begin);
      }
    } else if (r == height) {
      dgate.end(r);
    }
    if (const int64_t r = t - 3; r >= 0 && r < height) {
      const T *above = dgate[r - 1], *middle = dgate[r], *below = dgate[r + 1], *h = plain[r] + kStep;
      T* out = dplain[r] + kStep;
      for (int64_t begin = 0; begin < width; begin += kColumnsPerSum) {
        const int64_t end = smaller(width, begin + kColumnsPerSum);
        TapSums<T> taps(sums1.sums);
        for (int64_t c = begin; c < end; ++c) {
          const Vec<T> dl = Window<T>(above, middle, below, c).convolve_back(filter2);
          const Vec<T> dh = load(h + c * kStep) > Vec<T>{} ? dl : dl * slope;
          store(out + c * kStep, dh);
          taps.add(Window<T>(inputs[r - 1], inputs[r], inputs[r + 1], c), dh);
        }
        taps.write(sums1.sums);
        sums1.count(end - begin);
      }
    } else if (r == height) {
      dplain.end(r);
    }
    if (const int64_t r = t - 4; r >= 0 && dx != nullptr) {
      const T *above = dplain[r - 1], *middle = dplain[r], *below = dplain[r + 1], *in = direct[r] + kStep;
      T* out = sink.row(r);
      for (int64_t c = 0; c < width; ++c) {
        store(out + c * kStep, load(in + c * kStep) + Window<T>(above, middle, below, c).convolve_back(filter1));
      }
      sink.done(r);
    }
  }
  if (dweights == nullptr) return;
  sums1.flush();
  sums2.flush();
  T sums[2 * kTaps * kStep];
  for (int64_t i = 0; i < kTaps * kStep; ++i) {
    sums[i] = static_cast<T>(sums1.totals[i]);
    sums[kTaps * kStep + i] = static_cast<T>(sums2.totals[i]);
  }
  store_positions(sums, 0, 2 * kTaps, count, 2 * kTaps, dweights + first * 2 * kTaps);
}

template <class T>
int64_t staged_values(int64_t height, int64_t width) {
  return batch_rows(height, width) * width * kLanes<T>;
}

}  // namespace

#define PYREID_DEFINE_GATE(S, T)                                                                                     \
  void gate_group(const S* x, const T* weight1, const T* weight2, int64_t first, int64_t count, int64_t channels,    \
                  int64_t height, int64_t width, T slope, T* scratch, S* local, S* avg, S* max, int64_t* argmax) {   \
    gate_group_impl(x, weight1, weight2, first, count, channels, height, width, slope, scratch, local, avg, max,     \
                    argmax);                                                                                         \
  }                                                                                                                  \
  void gate_gradient_group(const S* dlocal, const S* davg, const S* dmax, const S* x, const T* weight1,              \
                           const T* weight2, const int64_t* argmax, int64_t first, int64_t count, int64_t channels,  \
                           int64_t height, int64_t width, T slope, T* scratch, S* dx, T* dweights) {                 \
    gate_gradient_group_impl(dlocal, davg, dmax, x, weight1, weight2, argmax, first, count, channels, height, width, \
                             slope, scratch, dx, dweights);                                                          \
  }

#define PYREID_DEFINE_GATE_SIZES(T)                                                                         \
  int64_t gate_planes(T) { return kLanes<T>; }                                                              \
  int64_t gate_scratch(T, int64_t height, int64_t width) {                                                  \
    return 2 * Ring<T, 3>::values(width) + 2 * staged_values<T>(height, width);                             \
  }                                                                                                         \
  int64_t gate_gradient_scratch(T, int64_t height, int64_t width) {                                         \
    return Ring<T, 5>::values(width) + 5 * Ring<T, 3>::values(width) + 3 * staged_values<T>(height, width); \
  }

PYREID_DEFINE_GATE(float, float)
PYREID_DEFINE_GATE(double, double)
PYREID_DEFINE_GATE(Half, float)
PYREID_DEFINE_GATE(BFloat16, float)
PYREID_DEFINE_GATE_SIZES(float)
PYREID_DEFINE_GATE_SIZES(double)

}  // namespace pyreid::cpu::PYREID_ISA
