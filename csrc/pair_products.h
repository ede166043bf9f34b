// What pair_products multiplies, shared by both backends; the pointers live where the backend computes.
#pragma once
#include <cstdint>

namespace pyreid {

template <class T>
struct PairTask {
  const T* x;            // [., d]
  const T* y;            // [., d]
  int64_t d;             //
  const int64_t* rows;   // [pairs], of x
  const int64_t* items;  // [pairs], rows of y
  int64_t pairs;         //
};

}  // namespace pyreid
