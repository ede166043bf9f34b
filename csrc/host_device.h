// Marks functions that both backends compile.
#pragma once

#ifdef __CUDACC__
#define PYREID_HOST_DEVICE __host__ __device__
#else
#define PYREID_HOST_DEVICE
#endif
