// The built-in vector types of CUDA, with its alignments, and dim3.
#pragma once

#define PYREID_SHIM_VECTOR(name, T, alignment2, alignment4)          \
  struct name##1 { T x; };                                           \
  struct alignas(alignment2) name##2 { T x, y; };                    \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(alignment4) name##4 { T x, y, z, w; };              \
  inline name##1 make_##name##1(T x) { return {x}; }                 \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

PYREID_SHIM_VECTOR(char, signed char, 2, 4)
PYREID_SHIM_VECTOR(uchar, unsigned char, 2, 4)
PYREID_SHIM_VECTOR(short, short, 4, 8)
PYREID_SHIM_VECTOR(ushort, unsigned short, 4, 8)
PYREID_SHIM_VECTOR(int, int, 8, 16)
PYREID_SHIM_VECTOR(uint, unsigned, 8, 16)
PYREID_SHIM_VECTOR(longlong, long long, 16, 16)
PYREID_SHIM_VECTOR(ulonglong, unsigned long long, 16, 16)
PYREID_SHIM_VECTOR(float, float, 8, 16)
PYREID_SHIM_VECTOR(double, double, 16, 16)
#undef PYREID_SHIM_VECTOR

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  operator uint3() const { return {x, y, z}; }
};
