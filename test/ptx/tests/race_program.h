// Three blocks of four threads on one memory, for checks of races.
#pragma once

#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "../src/races.h"

namespace ptx::test {

inline constexpr uint32_t kThreadsPerBlock = 4;
inline constexpr uint64_t kFlag = 0;   // of strong accesses
inline constexpr uint64_t kData = 16;  // of weak ones

// Each access returns whether it raced.
struct RaceProgram {
  Races races{3, kThreadsPerBlock};
  Shadow memory{256};
  std::optional<Race> last;

  bool access(Actor actor, AccessKind kind, uint64_t offset, uint32_t size, uint32_t at) {
    last = races.access(memory, offset, size, actor, kind, at);
    return last.has_value();
  }
  bool read(uint32_t thread, uint64_t offset = kData, uint32_t size = 4, uint32_t at = 0) {
    return access({thread}, {Access::kRead}, offset, size, at);
  }
  bool write(uint32_t thread, uint64_t offset = kData, uint32_t size = 4, uint32_t at = 0) {
    return access({thread}, {Access::kWrite}, offset, size, at);
  }
  bool load(uint32_t thread, Order order, Scope scope = Scope::kGpu, uint64_t offset = kFlag,
            uint32_t size = 4) {
    return access({thread}, {Access::kRead, scope, order}, offset, size, 0);
  }
  bool store(uint32_t thread, Order order, Scope scope = Scope::kGpu, uint64_t offset = kFlag,
             uint32_t size = 4) {
    return access({thread}, {Access::kWrite, scope, order}, offset, size, 0);
  }
  bool atomic(uint32_t thread, Order order, Scope scope = Scope::kGpu, uint64_t offset = kFlag,
              uint32_t size = 4) {
    return access({thread}, {Access::kAtomic, scope, order}, offset, size, 0);
  }
  bool copy_to(uint32_t thread, uint64_t offset = kData, uint32_t size = 16, uint32_t at = 0) {
    return access({thread, true}, {Access::kWrite}, offset, size, at);
  }
  bool copy_from(uint32_t thread, uint64_t offset = kData, uint32_t size = 16, uint32_t at = 0) {
    return access({thread, true}, {Access::kRead}, offset, size, at);
  }
  void barrier(uint32_t block) {
    std::vector<uint32_t> threads(kThreadsPerBlock);
    std::iota(threads.begin(), threads.end(), block * kThreadsPerBlock);
    races.meet(threads);
  }
};

// Threads of block 0 are 0 .. 3, of block 1 4 .. 7, of block 2 8 .. 11.
inline constexpr uint32_t kB = 4;
inline constexpr uint32_t kC = 8;

inline constexpr Order kRelaxed = Order::kRelaxed;
inline constexpr Order kAcquire = Order::kAcquire;
inline constexpr Order kRelease = Order::kRelease;
inline constexpr Order kBoth = Order::kAcquireRelease;

}  // namespace ptx::test
