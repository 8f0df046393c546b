// Memory between two regions that fault: one element too far, on either side, ends the program.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>

namespace marlin::test {

// Which end of the buffer touches its guard. A buffer can only touch one of them exactly.
enum class Flush { kStart, kEnd };

// Longer than the distance at which kernels ask for memory ahead of time: a load from there faults.
inline constexpr size_t kGuardBytes = 1 << 16;

inline constexpr Flush kFlushes[] = {Flush::kStart, Flush::kEnd};

template <typename T>
class Guarded {
 public:
  // Every byte starts as 0xFF: NaN as a float of any width, the largest code as words.
  Guarded(int64_t count, Flush flush) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = size_bytes();
    const size_t inner = (bytes + page - 1) / page * page;
    mapped_ = inner + 2 * kGuardBytes;
    base_ = static_cast<std::byte*>(
        mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED ||
        (inner > 0 && mprotect(base_ + kGuardBytes, inner, PROT_READ | PROT_WRITE) != 0)) {
      std::cerr << "cannot map " << mapped_ << " bytes\n";
      std::abort();
    }
    // mmap aligns the start to a page; the end is aligned as the size allows.
    data_ = reinterpret_cast<T*>(base_ + kGuardBytes + (flush == Flush::kEnd ? inner - bytes : 0));
    poison(0xFF);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  void poison(int byte) { std::memset(static_cast<void*>(data_), byte, size_bytes()); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return count_; }
  size_t size_bytes() const { return static_cast<size_t>(count_) * sizeof(T); }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

  bool same_bytes(const Guarded& other) const {
    return count_ == other.count_ && std::memcmp(data_, other.data_, size_bytes()) == 0;
  }

 private:
  std::byte* base_;
  size_t mapped_;
  int64_t count_;
  T* data_;
};

}  // namespace marlin::test
