// Errors of the CUDA runtime as exceptions that carry the expression and the place.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define PYREID_CUDA_CHECK(expression)                                                                    \
  do {                                                                                                   \
    const cudaError_t pyreid_error = (expression);                                                       \
    if (pyreid_error != cudaSuccess) {                                                                   \
      (void)cudaGetLastError(); /* or the next launch would report it again */                           \
      throw std::runtime_error(std::string(#expression " failed: ") + cudaGetErrorString(pyreid_error) + \
                               " (" __FILE__ ":" + std::to_string(__LINE__) + ")");                      \
    }                                                                                                    \
  } while (0)
