// Messages between threads: each rule of the memory model, with a twin that breaks it.

#include "check.h"
#include "race_program.h"

namespace ptx::test {
namespace {

// Does thread kB race when it reads what thread 0 wrote before it passed a message so?
template <typename Send, typename Receive>
bool message_races(Send send, Receive receive) {
  RaceProgram p;
  p.write(0);
  send(p);
  receive(p);
  return p.read(kB);
}

}  // namespace

TEST(messages_pass_by_release_and_acquire) {
  const auto race = [](Order send, Order receive) {
    return message_races([&](RaceProgram& p) { p.store(0, send); },
                         [&](RaceProgram& p) { p.load(kB, receive); });
  };
  expect(!race(kRelease, kAcquire), "release and acquire");
  expect(race(kRelaxed, kAcquire), "no release");
  expect(race(kRelease, kRelaxed), "no acquire");
}

TEST(fences_make_relaxed_accesses_pass_messages) {
  const auto race = [](bool fence_before, bool fence_after, Scope scope) {
    return message_races(
        [&](RaceProgram& p) {
          if (fence_before) p.races.fence(0, scope);
          p.store(0, kRelaxed);
        },
        [&](RaceProgram& p) {
          p.load(kB, kRelaxed);
          if (fence_after) p.races.fence(kB, scope);
        });
  };
  expect(!race(true, true, Scope::kGpu), "fences on both sides");
  expect(!race(true, true, Scope::kSystem), "fences of system scope");
  expect(race(false, true, Scope::kGpu), "none before the store");
  expect(race(true, false, Scope::kGpu), "none after the load");
  expect(race(true, true, Scope::kCta), "a fence of the block does not reach another");
}

TEST(fences_stand_on_the_right_side) {
  expect(message_races(
             [](RaceProgram& p) {
               p.store(0, kRelaxed);
               p.races.fence(0, Scope::kGpu);
             },
             [](RaceProgram& p) { p.load(kB, kAcquire); }),
         "the fence comes after the store");
  expect(message_races([](RaceProgram& p) { p.store(0, kRelease); },
                       [](RaceProgram& p) {
                         p.races.fence(kB, Scope::kGpu);
                         p.load(kB, kRelaxed);
                       }),
         "the fence comes before the load");
  RaceProgram p;
  p.races.fence(0, Scope::kGpu);
  p.write(0);
  p.store(0, kRelaxed);
  p.load(kB, kAcquire);
  expect(p.read(kB), "the data was written after the fence");
}

TEST(scopes_of_messages_include_the_other_thread) {
  const auto race = [](uint32_t receiver, Scope send, Scope receive) {
    RaceProgram p;
    p.write(0);
    p.store(0, kRelease, send);
    p.load(receiver, kAcquire, receive);
    return p.read(receiver);
  };
  expect(!race(1, Scope::kCta, Scope::kCta), "within the block");
  expect(!race(1, Scope::kGpu, Scope::kCta), "within the block, scopes differ");
  expect(race(kB, Scope::kCta, Scope::kGpu), "the release includes its block only");
  expect(race(kB, Scope::kGpu, Scope::kCta), "the acquire includes its block only");
  expect(race(kB, Scope::kCluster, Scope::kCluster), "a cluster is one block");
  expect(!race(kB, Scope::kSystem, Scope::kGpu), "both include the grid");
}

TEST(a_wider_fence_acquires_what_a_narrow_one_left) {
  RaceProgram p;
  p.write(0);
  p.store(0, kRelease);
  p.load(kB, kRelaxed);
  p.races.fence(kB, Scope::kCta);
  expect(p.read(kB), "after the fence of the block");
  RaceProgram q;
  q.write(0);
  q.store(0, kRelease);
  q.load(kB, kRelaxed);
  q.races.fence(kB, Scope::kCta);
  q.races.fence(kB, Scope::kGpu);
  expect(!q.read(kB), "after the fence of the grid");
}

TEST(later_acquires_and_earlier_releases_of_the_location_count) {
  const auto acquire_elsewhere = [](uint64_t offset) {
    return message_races([](RaceProgram& p) { p.store(0, kRelease); },
                         [&](RaceProgram& p) {
                           p.store(kB, kRelaxed, Scope::kGpu, kFlag + 4);
                           p.load(kB, kRelaxed);
                           p.load(kB, kAcquire, Scope::kGpu, offset);
                         });
  };
  expect(!acquire_elsewhere(kFlag), "an acquire of the same location");
  expect(acquire_elsewhere(kFlag + 4), "an acquire of another one");

  const auto release_elsewhere = [](uint64_t offset) {
    return message_races(
        [&](RaceProgram& p) {
          p.store(0, kRelease, Scope::kGpu, offset);
          p.store(0, kRelaxed);
        },
        [](RaceProgram& p) { p.load(kB, kAcquire); });
  };
  expect(!release_elsewhere(kFlag), "a release of the same location");
  expect(release_elsewhere(kFlag + 4), "a release of another one");
}

TEST(atomics_of_third_threads_carry_a_release_on) {
  const auto race = [](auto between) {
    return message_races([](RaceProgram& p) { p.store(0, kRelease); },
                         [&](RaceProgram& p) {
                           between(p);
                           p.load(kB, kAcquire);
                         });
  };
  expect(!race([](RaceProgram& p) { p.atomic(kC, kRelaxed); }), "a relaxed atomic");
  expect(!race([](RaceProgram& p) {
    p.atomic(kC, kRelaxed);
    p.atomic(1, kRelaxed);
    p.atomic(kB + 1, kRelaxed);
  }),
         "three of them");
  expect(race([](RaceProgram& p) { p.store(kC, kRelaxed); }), "a plain store ends it");
  expect(race([](RaceProgram& p) { p.store(kC, kRelease); }), "a release of another ends it");
  expect(race([](RaceProgram& p) { p.write(kC, kFlag); }), "a weak store ends it");
  expect(race([](RaceProgram& p) { p.store(kC, kRelaxed, Scope::kGpu, kFlag, 8); }),
         "a wider store ends it");
  expect(race([](RaceProgram& p) { p.atomic(kC, kRelaxed, Scope::kCta); }),
         "an atomic of another block's scope does not observe it");
  expect(race([](RaceProgram& p) {
           p.atomic(kC, kRelaxed);
           p.store(kC, kRelaxed);
           p.atomic(kC, kRelaxed);
         }),
         "what a store ended, an atomic does not bring back");
}

TEST(the_carrier_learns_nothing) {
  RaceProgram p;
  p.write(0);
  p.store(0, kRelease);
  p.atomic(kC, kRelaxed);
  expect(p.read(kC), "a relaxed atomic acquires nothing");
}

TEST(every_release_of_a_sequence_is_acquired) {
  RaceProgram p;
  p.write(0, 16);
  p.write(kB, 32);
  p.write(kC, 48);
  p.atomic(0, kRelease);
  p.atomic(kB, kRelease);
  p.atomic(kC, kRelaxed);
  p.load(1, kAcquire);
  expect(!p.read(1, 16), "of the first");
  expect(!p.read(1, 32), "of the second");
  expect(p.read(1, 48), "the third is not a release");
}

// The lock of the kernels: the block meets, one thread fences and adds; elsewhere one thread spins
// and its block meets.
TEST(locks_are_cumulative) {
  const auto race = [](bool meet_before, bool fence, bool meet_after) {
    RaceProgram p;
    p.write(3);
    if (meet_before) p.barrier(0);
    if (fence) p.races.fence(0, Scope::kGpu);
    p.load(kB, kAcquire);
    p.atomic(0, kRelaxed);
    p.load(kB, kAcquire);
    if (meet_after) p.barrier(1);
    return p.write(kB + 2);
  };
  expect(!race(true, true, true), "as the kernels do");
  expect(race(false, true, true), "the block does not meet before");
  expect(race(true, false, true), "no fence");
  expect(race(true, true, false), "the block does not meet after");
}

TEST(a_barrier_joins_what_its_threads_learned_elsewhere) {
  RaceProgram p;
  for (uint32_t i = 0; i < 4; ++i) {
    if (i == 2) p.races.meet({kB, kB + 1, kB + 2});  // so that it knows more than the two before
    p.write(kB + i, 32 + 16 * i);
    p.store(kB + i, kRelease, Scope::kGpu, 4 * i);
  }
  for (uint32_t i = 0; i < 4; ++i) p.load(i, kAcquire, Scope::kGpu, 4 * i);
  expect(p.read(0, 32 + 16 * 3), "before the barrier");
  p.barrier(0);
  for (uint32_t i = 0; i < 4; ++i) expect(!p.read(1, 32 + 16 * i), "what thread ", i, " learned");
}

TEST(locks_are_transitive_over_three_blocks) {
  const auto race = [](bool second_waits) {
    RaceProgram p;
    p.write(1, 16);
    p.barrier(0);
    p.atomic(0, kRelease, Scope::kGpu, 0);
    if (second_waits) p.load(kB, kAcquire, Scope::kGpu, 0);
    p.barrier(1);
    p.races.fence(kB + 1, Scope::kGpu);
    p.atomic(kB + 1, kRelaxed, Scope::kGpu, 4);
    p.load(kC, kAcquire, Scope::kGpu, 4);
    p.barrier(2);
    return p.read(kC + 3, 16);
  };
  expect(!race(true), "through the second block");
  expect(race(false), "the second block waits for nobody");
}

// Causality order begins with an observation: who acquired a lock may reset it with a weak store.
TEST(an_observed_strong_write_comes_before) {
  const auto race = [](bool observes) {
    RaceProgram p;
    p.races.fence(0, Scope::kGpu);
    p.atomic(0, kRelaxed);
    if (observes) p.load(kB, kAcquire);
    return p.write(kB, kFlag);
  };
  expect(!race(true), "after the load that read it");
  expect(race(false), "without one");
  RaceProgram p;
  p.atomic(0, kRelaxed);
  p.load(kB, kRelaxed);
  expect(p.write(kB + 1, kFlag), "for another thread, which did not read");
  RaceProgram q;
  q.atomic(0, kRelaxed);
  q.load(kB, kRelaxed);
  q.atomic(kC, kRelaxed);
  expect(q.write(kB, kFlag), "the next atomic was not observed");
}

}  // namespace ptx::test
