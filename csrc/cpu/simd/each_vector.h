// Walks a row of values of any storage type in vectors, its last n % kLanes values among them.
#pragma once
#include "csrc/cpu/simd/half.h"
#include "csrc/cpu/simd/vector.h"

namespace pyreid::cpu::PYREID_ISA {

template <class T>
inline IntVec<T> lane_numbers() {
  IntVec<T> lane;
  for (int64_t i = 0; i < kLanes<T>; ++i) lane[i] = static_cast<Int<T>>(i);
  return lane;
}

// A place in a row is one of these three. fresh(v) is v in the lanes whose values no place before had, else 0.
template <class T>
struct WholeVector {
  int64_t i;
  template <class S>
  Vec<T> load(const S* p) const {
    return load_values(p + i);
  }
  template <class S>
  void store(S* p, Vec<T> v) const {
    store_values(p + i, v);
  }
  Vec<T> fresh(Vec<T> v) const { return v; }
};

// The vector that ends with the row: its first lanes were in the vector before, and are written again with the same
// bits.
template <class T>
struct LastVector : WholeVector<T> {
  int64_t repeated;
  Vec<T> fresh(Vec<T> v) const { return lane_numbers<T>() < static_cast<Int<T>>(repeated) ? Vec<T>{} : v; }
};

// The first lanes of a vector, for a row that is shorter than one. The other lanes are read as 0.
template <class T>
struct PartOfVector {
  int64_t i, count;
  template <class S>
  Vec<T> load(const S* p) const {
    return load_some(p + i, count);
  }
  template <class S>
  void store(S* p, Vec<T> v) const {
    store_some(p + i, v, count);
  }
  Vec<T> fresh(Vec<T> v) const { return lane_numbers<T>() < static_cast<Int<T>>(count) ? v : Vec<T>{}; }
};

// Calls body(place) for the values begin to end of a row, in order. The row must begin at 0: the last place may reach
// back before `begin`.
template <class T, class Body>
inline void each_vector(int64_t begin, int64_t end, Body body) {
  int64_t i = begin;
  for (; i + kLanes<T> <= end; i += kLanes<T>) body(WholeVector<T>{i});
  if (i == end) return;
  if (end < kLanes<T>) {
    body(PartOfVector<T>{i, end - i});
  } else {
    body(LastVector<T>{{end - kLanes<T>}, i - (end - kLanes<T>)});
  }
}

}  // namespace pyreid::cpu::PYREID_ISA
