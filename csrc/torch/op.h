// What an operator of csrc/ops needs from libtorch, all of it in the stable ABI. csrc/ops is compiled twice: into
// pyreid_cpu, and with PYREID_CUDA_BACKEND into pyreid_cuda. `backend` names the kernels of the one that is being
// built.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#ifdef PYREID_CUDA_BACKEND
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#else
#include "csrc/cpu/half.h"
#include "csrc/cpu/parallel.h"
#endif

namespace pyreid {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

#ifdef PYREID_CUDA_BACKEND

#define PYREID_BACKEND_KEY CUDA
namespace cuda {}
namespace backend = cuda;
using HalfType = __half;
using BFloat16Type = __nv_bfloat16;

// Makes the tensor's device current and holds the stream to launch on.
class Launch {
 public:
  explicit Launch(const Tensor& on) : guard_(on.get_device_index()) {
    // accelerator::Stream::id() is no cudaStream_t; this call returns the real one.
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t context() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

#else

#define PYREID_BACKEND_KEY CPU
namespace cpu {}
namespace backend = cpu;
using HalfType = cpu::Half;
using BFloat16Type = cpu::BFloat16;

class Launch {
 public:
  explicit Launch(const Tensor&)
      : parallel_for_([](int64_t begin, int64_t end, int64_t grain, const cpu::Range& body) {
          if (begin < end) torch::stable::parallel_for(begin, end, grain < 1 ? 1 : grain, body);
        }) {}
  const cpu::ParallelFor& context() const { return parallel_for_; }

 private:
  cpu::ParallelFor parallel_for_;
};

#endif

// Calls body(T{}) with the element type for a tensor of float32 or float64; anything else is an error.
template <class Body>
void dispatch_floating(const Tensor& t, const char* op, Body body) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    default:
      STD_TORCH_CHECK(false, op, ": expected float32 or float64");
  }
}

// The same with float16 and bfloat16, in the backend's own storage types.
template <class Body>
void dispatch_floating_and_half(const Tensor& t, const char* op, Body body) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::Half:
      return body(HalfType{});
    case ScalarType::BFloat16:
      return body(BFloat16Type{});
    default:
      STD_TORCH_CHECK(false, op, ": expected float16, bfloat16, float32 or float64");
  }
}

// The type that a storage type is computed in, and as torch names it for a tensor's dtype.
template <class S>
using Compute = std::conditional_t<std::is_same_v<S, double>, double, float>;
inline ScalarType computing_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline bool on_device_of(const Tensor& like, const Tensor& t) {
  return t.is_cuda() == like.is_cuda() && t.get_device_index() == like.get_device_index();
}
inline bool on_device_of(const Tensor& like, const std::optional<Tensor>& t) {
  return !t.has_value() || on_device_of(like, *t);
}

// Raises unless all of them, tensors or optional ones, are on the device of `like`: the dispatcher looks at one alone.
template <class... Others>
void check_devices(const char* op, const Tensor& like, const Others&... others) {
  STD_TORCH_CHECK((on_device_of(like, others) && ...), op, ": the tensors are on different devices");
}

// torch's matrix product. Autocast, which the dispatcher would apply here too, must be off: kernels write into it.
inline Tensor product(const Tensor& a, const Tensor& b) {
  Tensor out = torch::stable::matmul(a, b);
  STD_TORCH_CHECK(out.scalar_type() == a.scalar_type() && out.is_contiguous(),
                  "a matrix product came in another dtype: autocast is on inside an operator");
  return out;
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.data_ptr());
}

template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

// An uninitialised tensor on the device of `like`, of its dtype or of another one.
inline Tensor empty(const Tensor& like, const std::vector<int64_t>& sizes) {
  return torch::stable::new_empty(like, sizes);
}
inline Tensor empty(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType dtype) {
  return torch::stable::new_empty(like, sizes, dtype);
}

}  // namespace pyreid
