// What noting an access costs, on the traffic of a product. PTX_TEST_TIMES=1 repeats it and prints.

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include "../src/races.h"
#include "check.h"

namespace ptx::test {
namespace {

constexpr uint32_t kBlocks = 16;
constexpr uint32_t kThreads = 256;
constexpr uint64_t kBytes = 32 << 10;  // of a stage in shared memory
constexpr uint32_t kMeasured = 100;    // repetitions

// One block of a grid, between barriers.
struct Block {
  Races races{kBlocks, kThreads};
  Shadow shared{kBytes};
  Shadow global{kBytes};
  std::vector<uint32_t> threads;
  uint32_t groups = 0;
  uint64_t accesses = 0;
  uint64_t raced = 0;

  Block() : threads(kThreads) { std::iota(threads.begin(), threads.end(), 2 * kThreads); }

  // The threads, from `first` on, access all the memory in turn.
  void sweep(Shadow& memory, uint32_t size, Access access, uint32_t first, bool is_copy = false) {
    for (uint64_t i = 0; i < kBytes / size; ++i) {
      const Actor actor{threads[(i + first) % kThreads], is_copy};
      raced += races.access(memory, size * i, size, actor, {access}, 1) ? 1 : 0;
    }
    accesses += kBytes / size;
  }
  void meet() { races.meet(threads); }
  void wait_for_copies() {
    ++groups;
    for (const uint32_t thread : threads) {
      races.commit(thread);
      races.wait(thread, groups);
    }
    meet();
  }
};

template <typename Step>
void run(const char* what, Step step) {
  const bool is_measured = std::getenv("PTX_TEST_TIMES") != nullptr;
  Block block;
  step(block);
  block.accesses = 0;
  const auto start = std::chrono::steady_clock::now();
  for (uint32_t i = 0; is_measured && i < kMeasured; ++i) step(block);
  const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
  expect(block.raced == 0, block.raced, " races in ", what);
  if (!is_measured) return;
  std::cout << "  " << what << ": " << time.count() / static_cast<double>(block.accesses)
            << " ns per access" << std::endl;
}

}  // namespace

TEST(races_cost_little) {
  for (const uint32_t size : {16u, 4u, 2u}) {
    const std::string bytes = std::to_string(size) + "-byte ";
    run((bytes + "writes, then reads by others").c_str(), [&](Block& block) {
      block.sweep(block.shared, size, Access::kWrite, 0);
      block.meet();
      block.sweep(block.shared, size, Access::kRead, 1);
      block.meet();
    });
    run((bytes + "copies, then reads by four warps").c_str(), [&](Block& block) {
      block.sweep(block.global, 16, Access::kRead, 0, true);
      block.sweep(block.shared, 16, Access::kWrite, 0, true);
      block.wait_for_copies();
      for (uint32_t warp = 0; warp < 4; ++warp) {
        block.sweep(block.shared, size, Access::kRead, 32 * warp);
      }
      block.meet();
    });
  }
  run("reads of shared bytes by each block", [](Block& block) {
    for (uint32_t first = 0; first < kBlocks; ++first) {
      std::iota(block.threads.begin(), block.threads.end(), first * kThreads);
      block.sweep(block.global, 16, Access::kRead, 0);
      block.meet();
    }
  });
  run("reads of one number by all threads of a block", [](Block& block) {
    for (const uint32_t thread : block.threads) {
      block.raced += block.races.access(block.global, 4, 4, {thread}, {Access::kRead}, 1) ? 1 : 0;
    }
    block.accesses += kThreads;
  });
  run("atomics, one per thread and 16 bytes", [](Block& block) {
    for (uint64_t i = 0; i < kBytes / 16; ++i) {
      const Actor actor{block.threads[i % kThreads]};
      const AccessKind kind{Access::kAtomic, Scope::kGpu, Order::kRelaxed};
      block.raced += block.races.access(block.global, 16 * i, 4, actor, kind, 1) ? 1 : 0;
    }
    block.accesses += kBytes / 16;
  });
  run("barriers, per thread", [](Block& block) {
    block.meet();
    block.accesses += kThreads;
  });
  run("meetings of warps, per thread", [](Block& block) {
    for (uint32_t first = 0; first < kThreads; first += 32) {
      block.races.meet({block.threads.begin() + first, block.threads.begin() + first + 32});
    }
    block.accesses += kThreads;
  });
}

}  // namespace ptx::test
