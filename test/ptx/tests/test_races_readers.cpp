// Asynchronous copies and concurrent readers: what is remembered of each, and for how long.

#include <numeric>
#include <optional>
#include <vector>

#include "check.h"
#include "race_program.h"

namespace ptx::test {

TEST(copies_are_waited_for) {
  RaceProgram p;
  p.copy_to(0);
  p.races.commit(0);
  expect(p.read(0), "its own thread reads before the wait");
  RaceProgram q;
  expect(q.races.commit(0) == 0, "the first group is 0");
  q.copy_to(0);
  expect(q.races.commit(0) == 1, "the second group is 1");
  q.races.wait(0, 1);
  expect(q.read(0), "the group before is not enough");
  RaceProgram r;
  r.races.commit(0);
  r.copy_to(0);
  r.races.commit(0);
  r.races.wait(0, 2);
  expect(!r.read(0), "after the wait");
  expect(r.read(1), "the wait of another thread");
  RaceProgram s;
  s.copy_to(0);
  expect(s.write(0), "its own thread writes before the wait");
}

TEST(copies_are_known_to_who_meets_the_thread_that_waited) {
  const auto race = [](bool wait_before, bool wait_after) {
    RaceProgram p;
    p.copy_to(0);
    p.races.commit(0);
    if (wait_before) p.races.wait(0, 1);
    p.barrier(0);
    if (wait_after) p.races.wait(0, 1);
    return p.read(1);
  };
  expect(!race(true, false), "wait, then barrier");
  expect(race(false, true), "barrier, then wait");
  expect(race(false, false), "no wait");
}

TEST(copies_come_after_their_thread) {
  RaceProgram p;
  p.write(0);
  expect(!p.copy_from(0), "a copy reads what its thread wrote");
  expect(!p.copy_from(0, 32), "twice");
  expect(!p.read(0), "both read");
  expect(p.write(0), "the copy may still read");
  RaceProgram q;
  q.write(1);
  expect(q.copy_from(0), "what another thread wrote");
  RaceProgram r;
  r.write(1);
  r.barrier(0);
  expect(!r.copy_from(0), "what another thread wrote before the barrier");
  r.races.commit(0);
  r.races.wait(0, 1);
  expect(!r.write(0), "the copy is done");
}

TEST(copies_of_one_thread_race_with_each_other) {
  const auto race = [](bool commit, bool wait) {
    RaceProgram p;
    p.copy_to(0);
    if (commit) p.races.commit(0);
    if (wait) p.races.wait(0, 1);
    return p.copy_to(0);
  };
  expect(race(false, false), "in one group");
  expect(race(true, false), "in two groups");
  expect(!race(true, true), "in two groups, the first waited for");
}

TEST(a_buffer_is_refilled_after_its_readers) {
  const auto race = [](bool meet_after_reads) {
    RaceProgram p;
    p.copy_to(0);
    p.races.commit(0);
    p.races.wait(0, 1);
    p.barrier(0);
    for (uint32_t thread = 0; thread < kThreadsPerBlock; ++thread) p.read(thread, kData, 16);
    if (meet_after_reads) p.barrier(0);
    return p.copy_to(0);
  };
  expect(!race(true), "they met");
  expect(race(false), "they may still read");
}

TEST(every_concurrent_reader_is_remembered) {
  const auto race = [](std::vector<uint32_t> met) {
    RaceProgram p;
    p.write(3);
    p.barrier(0);
    for (const uint32_t reader : {0u, 1u, 2u}) p.read(reader, kData, 4, 10 + reader);
    met.push_back(3);
    p.races.meet(met);
    p.write(3);
    return p.last;
  };
  expect(!race({0, 1, 2}), "after all of them");
  for (const uint32_t left : {0u, 1u, 2u}) {
    std::vector<uint32_t> met;
    for (const uint32_t reader : {0u, 1u, 2u}) {
      if (reader != left) met.push_back(reader);
    }
    const std::optional<Race> found = race(met);
    expect(found && found->earlier.thread == left && found->earlier_at == 10 + left,
           "all but reader ", left);
  }
}

// Thread 0 learns of the first reads only.
TEST(each_of_many_readers_is_remembered) {
  constexpr uint32_t kReaders = 64;
  constexpr uint32_t kRounds = 5;
  std::vector<uint32_t> readers(kReaders);
  std::iota(readers.begin(), readers.end(), 1u);
  const auto race = [&](uint32_t left) {
    Races races(1, kReaders + 1);
    Shadow memory(16);
    Shadow flags(4 * (kReaders + 1));
    for (uint32_t round = 0; round < kRounds; ++round) {
      for (const uint32_t reader : readers) {
        races.access(memory, 0, 4, {reader}, {Access::kRead}, round);
        if (round != 0) continue;
        const uint64_t flag = 4 * reader;
        races.access(flags, flag, 4, {reader}, {Access::kWrite, Scope::kCta, kRelease}, 0);
        races.access(flags, flag, 4, {0}, {Access::kRead, Scope::kCta, kAcquire}, 0);
      }
    }
    for (uint32_t i = 0; i < 2 * kReaders; ++i) {  // makes room among the readers
      races.access(memory, 0, 4, {1 + i % 2}, {Access::kRead}, kRounds);
    }
    std::vector<uint32_t> met = readers;
    std::erase(met, left);
    met.push_back(0);
    races.meet(met);
    return races.access(memory, 0, 4, {0}, {Access::kWrite}, 0);
  };
  expect(!race(kReaders + 1), "after all of them");
  for (const uint32_t left : readers) {
    const std::optional<Race> found = race(left);
    expect(found && found->earlier.thread == left, "all but reader ", left);
  }
}

TEST(copies_and_strong_writes_are_found_among_many_readers) {
  std::vector<uint32_t> most(8);
  std::iota(most.begin(), most.end(), 0u);
  const auto read_by_most = [&](RaceProgram& p) {
    for (const uint32_t reader : most) p.read(reader, kFlag);
    for (const uint32_t reader : most) p.read(reader, kFlag);
  };
  RaceProgram p;
  p.atomic(0, kRelaxed);
  p.races.meet(most);
  read_by_most(p);
  expect(p.read(kC, kFlag) && p.last->earlier_access == Access::kAtomic, "an atomic before them");
  RaceProgram q;
  read_by_most(q);
  q.races.meet(most);
  q.atomic(0, kRelaxed);
  expect(q.read(kC, kFlag) && q.last->earlier_access == Access::kAtomic, "an atomic after them");
  RaceProgram r;
  for (const uint32_t reader : most) {
    r.copy_from(reader, kFlag, 4);
    read_by_most(r);
  }
  r.races.meet(most);
  expect(r.write(0, kFlag) && r.last->earlier.is_copy, "copies that nobody waited for");
}

}  // namespace ptx::test
