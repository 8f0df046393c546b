// What races and what does not: barriers, bytes, strong accesses, and what is told of a race.

#include <algorithm>
#include <numeric>
#include <vector>

#include "check.h"
#include "race_program.h"

namespace ptx::test {

TEST(races_between_threads_without_a_barrier) {
  for (const bool first_writes : {false, true}) {
    for (const bool second_writes : {false, true}) {
      const auto race = [&](uint32_t second, bool meet) {
        RaceProgram p;
        first_writes ? p.write(0) : p.read(0);
        if (meet) p.barrier(0);
        return second_writes ? p.write(second) : p.read(second);
      };
      expect(race(1, false) == (first_writes || second_writes), "without a barrier");
      expect(!race(1, true), "with a barrier");
      expect(!race(0, false), "in program order");
      expect(race(kB, true) == (first_writes || second_writes), "the barrier of another block");
    }
  }
}

TEST(races_after_a_barrier_are_with_what_came_after_it) {
  RaceProgram p;
  p.write(0);
  p.barrier(0);
  expect(!p.write(1), "before the barrier");
  expect(p.read(0), "after the barrier");
}

TEST(warps_meet_without_the_rest_of_the_block) {
  RaceProgram p;
  p.write(0, 16);
  p.write(2, 32);
  p.races.meet({0, 1});
  p.races.meet({2, 3});
  expect(!p.read(1, 16), "the lane of the same warp");
  expect(p.read(3, 16), "a lane of another warp");
  expect(p.read(1, 32), "the first warp does not know the second");
  p.barrier(0);
  expect(!p.write(3, 16), "the barrier joins both warps");
  expect(!p.write(0, 32), "in both ways");
}

TEST(meetings_of_subsets_are_transitive) {
  RaceProgram p;
  p.write(0);
  p.races.meet({0, 1});
  p.races.meet({1, 2});
  expect(!p.read(2), "0 meets 1, then 1 meets 2");
  expect(p.write(3), "3 met nobody");
}

TEST(neighbouring_bytes_do_not_race) {
  RaceProgram p;
  for (uint32_t thread = 0; thread < 12; ++thread) {
    expect(!p.write(thread, 16 + thread, 1), "byte ", thread);
  }
  for (uint32_t thread = 0; thread < 12; ++thread) {
    expect(!p.read(thread, 16 + thread, 1), "read of byte ", thread);
  }
  expect(p.read(0, 16, 2), "the neighbour's byte");
  expect(p.last->offset == 17 && p.last->earlier.thread == 1, "it is the second byte");
}

TEST(partial_overlaps_race_at_every_alignment) {
  for (const uint32_t size : {1u, 2u, 4u, 8u, 16u, 32u}) {
    for (uint64_t offset = 20; offset < 40; ++offset) {
      for (const uint32_t other_size : {1u, 2u, 3u, 4u, 8u, 16u, 32u}) {
        for (uint64_t other = 0; other < 64; ++other) {
          RaceProgram p;
          p.write(0, offset, size, 7);
          const uint64_t begin = std::max(offset, other);
          const uint64_t end = std::min(offset + size, other + other_size);
          const bool race = p.read(1, other, other_size);
          if (race == (begin < end) && (!race || p.last->offset == begin)) continue;
          expect(false, size, " at ", offset, ", then ", other_size, " at ", other);
        }
      }
    }
  }
}

TEST(cells_split_and_merge) {
  RaceProgram p;
  p.write(0, 16, 16);
  p.write(1, 18, 1);  // races, and stands
  expect(p.last && p.last->earlier.thread == 0, "one byte of a line");
  p.barrier(0);
  expect(!p.write(2, 16, 16), "the whole line again");
  expect(p.read(3, 31, 1) && p.last->earlier.thread == 2, "the last byte");
  p.barrier(0);
  for (uint32_t word = 0; word < 4; ++word) p.write(word, 16 + 4 * word, 4);
  expect(p.read(3, 16, 16) && p.last->earlier.thread == 0, "of four writers");
  RaceProgram q;
  for (uint32_t word = 0; word < 4; ++word) q.write(word, 16 + 4 * word, 4);
  q.barrier(0);
  expect(!q.read(3, 16, 16), "after the barrier");
  expect(q.write(2, 24, 4) && q.last->earlier.thread == 3, "the read of the whole line");
}

TEST(strong_accesses_do_not_race_with_each_other) {
  const auto race = [](uint32_t second, Scope a, Scope b) {
    RaceProgram p;
    p.store(0, kRelaxed, a);
    return p.atomic(second, kRelaxed, b) || p.load(second, kRelaxed, b);
  };
  expect(!race(kB, Scope::kGpu, Scope::kSystem), "both include the grid");
  expect(!race(1, Scope::kCta, Scope::kCta), "both include the block");
  expect(race(kB, Scope::kCta, Scope::kGpu), "the first includes its block only");
  expect(race(kB, Scope::kGpu, Scope::kCta), "the second includes its block only");
  RaceProgram p;
  p.load(0, kRelaxed, Scope::kCta);
  expect(!p.load(kB, kRelaxed, Scope::kCta), "reads never race");
  expect(p.store(kB, kRelaxed, Scope::kGpu), "a read of the other block's scope");
}

TEST(strong_and_weak_accesses_race) {
  RaceProgram p;
  p.write(0, kFlag);
  expect(p.atomic(kB, kBoth), "an atomic after a weak write");
  RaceProgram q;
  q.read(0, kFlag);
  expect(q.store(kB, kRelaxed), "a store after a weak read");
  RaceProgram r;
  r.store(0, kRelaxed);
  expect(r.read(kB, kFlag), "a weak read after a store");
  RaceProgram s;
  s.load(0, kAcquire);
  expect(s.write(kB, kFlag), "a weak write after a load");
  RaceProgram t;
  t.write(0, kFlag);
  t.barrier(0);
  expect(!t.atomic(1, kRelaxed), "ordered by a barrier");
  expect(t.atomic(kB, kRelaxed), "the weak write is not forgotten for the atomic after it");
  RaceProgram u;
  u.load(0, kAcquire);
  expect(!u.read(kB, kFlag), "reads never race");
}

TEST(strong_accesses_of_different_sizes_race) {
  RaceProgram p;
  p.store(0, kRelaxed, Scope::kGpu, 0, 8);
  expect(p.store(kB, kRelaxed, Scope::kGpu, 4, 4), "a part of it");
  expect(p.last->offset == 4, "at the part");
  RaceProgram q;
  q.store(0, kRelease, Scope::kGpu, 0, 4);
  q.write(0);
  expect(q.load(kB, kAcquire, Scope::kGpu, 0, 8), "more than it");
  RaceProgram r;
  r.store(0, kRelaxed, Scope::kGpu, 0, 4);
  expect(!r.store(kB, kRelaxed, Scope::kGpu, 4, 4), "its neighbour");
  r.barrier(0);
  expect(!r.store(1, kRelaxed, Scope::kGpu, 0, 2), "ordered by a barrier");
}

TEST(a_strong_access_does_not_stand_for_one_that_conflicts_with_more) {
  const auto race = [](uint32_t first, Scope scope) {
    RaceProgram p;
    p.atomic(first, kRelaxed, scope);
    p.store(first, kRelease, Scope::kGpu, kFlag + 4);
    p.load(kB, kAcquire, Scope::kGpu, kFlag + 4);
    p.store(kB, kRelaxed);
    p.load(kB + 1, kRelaxed, Scope::kCta);
    return p.last && p.last->earlier.thread == first;
  };
  expect(race(0, Scope::kGpu), "the reader's scope does not include the first writer");
  expect(!race(kB + 2, Scope::kGpu), "it includes the writers of its block");
}

TEST(strong_writes_of_two_blocks_are_both_remembered) {
  RaceProgram p;
  p.atomic(0, kRelaxed);
  p.store(kB, kRelaxed);
  p.barrier(1);
  expect(p.read(kB + 1, kFlag), "the block met, but not with the other");
  expect(p.last && p.last->earlier.thread == 0, "the other block's atomic");
  RaceProgram q;
  q.atomic(0, kRelaxed);
  q.atomic(kB, kRelaxed);
  q.barrier(1);
  expect(!q.read(kB + 1, kFlag), "the second atomic observed the first");
}

TEST(races_tell_the_earlier_access) {
  RaceProgram p;
  p.read(1, kData, 4, 41);
  p.read(1, kData + 4, 4, 42);
  expect(p.write(2, kData + 2, 4, 43), "a read, then a write");
  expect(p.last->offset == kData + 2, "the first byte of both");
  expect(p.last->earlier.thread == 1 && !p.last->earlier.is_copy, "the reader");
  expect(p.last->earlier_access == Access::kRead && p.last->earlier_at == 41, "its instruction");

  RaceProgram q;
  q.copy_to(kB + 1, kData, 16, 51);
  expect(q.read(kC, kData + 8, 4, 52), "a copy, then a read");
  expect(q.last->earlier.thread == kB + 1 && q.last->earlier.is_copy, "the copy of a thread");
  expect(q.last->earlier_access == Access::kWrite && q.last->earlier_at == 51, "its instruction");

  RaceProgram r;
  r.access({kC}, {Access::kAtomic, Scope::kGpu, kRelaxed}, kFlag, 4, 61);
  expect(r.write(0, kFlag), "an atomic, then a write");
  expect(r.last->earlier.thread == kC && r.last->earlier_access == Access::kAtomic &&
             r.last->earlier_at == 61,
         "the atomic");
}

TEST(grids_may_be_large) {
  constexpr uint32_t kBlocks = 64;
  constexpr uint32_t kThreads = 1024;
  Races races(kBlocks, kThreads);
  Shadow memory(kBlocks * 16);
  std::vector<uint32_t> block(kThreads);
  for (uint32_t i = 0; i < kBlocks; ++i) {
    std::iota(block.begin(), block.end(), i * kThreads);
    const uint32_t first = block.front();
    const uint32_t last = block.back();
    races.access(memory, 16 * i, 16, {last}, {Access::kWrite}, 0);
    races.meet(block);
    races.access(memory, 0, 4, {first}, {Access::kAtomic, Scope::kGpu, kBoth}, 0);
    races.meet(block);
    for (uint32_t j = 1; j <= i; ++j) {
      expect(!races.access(memory, 16 * j, 16, {last}, {Access::kRead}, 0), "block ", i, ", ", j);
    }
  }
  expect(races.access(memory, 16 * (kBlocks - 1), 4, {0}, {Access::kRead}, 0).has_value(),
         "the first block knows nothing of the last");
}

}  // namespace ptx::test
