// Scratch memory of a kernel: not initialised, and aligned to the widest vectors, which then never straddle a cache
// line.
#pragma once
#include <cstdint>
#include <memory>
#include <new>

namespace pyreid::cpu {

template <class T>
class AlignedArray {
 public:
  explicit AlignedArray(int64_t size)
      : data_(static_cast<T*>(::operator new(static_cast<size_t>(size) * sizeof(T), kAlignment))) {}
  T* data() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace pyreid::cpu
