// float16 and bfloat16 as the CPU kernels see them: 16 bits of storage, converted to float for arithmetic.
#pragma once
#include <stdint.h>
#include <string.h>

namespace pyreid::cpu {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

}  // namespace pyreid::cpu
