// Data races by happens-before, not by luck: vector clocks over the threads of a grid and their
// asynchronous copies, after the memory model of PTX.
//
// An access is compared with the accesses to the same bytes before it, whatever the schedule was:
// two of them race if one writes, they are not ordered by synchronisation, and not both are strong
// operations (atomics, or relaxed, acquire, release, volatile loads and stores) whose scopes
// include each other.
//
// What orders (PTX manual, "Memory consistency model"; "causality order" is transitive, and so are
// vector clocks):
//   - bar.sync and barrier.sync: all that the arriving threads did before, all that they do after
//   - bar.warp.sync: likewise, among its lanes
//   - a release pattern read by an acquire pattern, at scopes that include each other:
//       release: st.release, atom.release and the like, or a fence, then a strong write
//       acquire: ld.acquire, atom.acquire and the like, or a strong read, then a fence
//     Atomics that read a value and write another carry on the release that they read (release
//     sequence); a plain strong store ends it.
//   - cp.async: the copies of a group are ordered after the instruction that started them and
//   before
//     the cp.async.wait_group of the same thread that waits for them
//   - a strong write before what is ordered after a strong read that observed it, so that who
//   acquired
//     a lock may reset it with a weak store
//   - the start of the grid comes before everything, the end after everything
// Shuffles, votes, mma.sync and ldmatrix order nothing. Neither does the order in which fence.sc
// and membar happened to run: another run has another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace ptx {

enum class Scope : uint8_t { kNone, kCta, kCluster, kGpu, kSystem };  // kNone: a weak access
enum class Order : uint8_t { kRelaxed, kAcquire, kRelease, kAcquireRelease };
enum class Access : uint8_t { kRead, kWrite, kAtomic };

// Who accesses: a thread of the grid, or an asynchronous copy of its open group. A copy is noted
// when it starts: it is ordered after what its thread has done and knows by then, and whoever
// touches its bytes before the group is waited for races with it, whenever the bytes really move.
struct Actor {
  uint32_t thread;  // block * threads per block + thread of the block
  bool is_copy = false;
};

struct AccessKind {
  Access access;
  Scope scope = Scope::kNone;
  Order order = Order::kRelaxed;  // of strong accesses
};

// Two accesses that race: the earlier one, as it was noted, or one of several.
struct Race {
  uint64_t offset;  // the first byte, of those of the later access, that both touch
  Actor earlier;
  Access earlier_access;
  uint32_t earlier_at;  // what the caller noted with it: the instruction
  // None of those that the later one races with is a read, an atomic or of a copy.
  bool is_with_writes_only;
};

// The accesses to one memory (a buffer of global memory, or the shared memory of one block).
class Shadow {
 public:
  explicit Shadow(size_t bytes);
  ~Shadow();
  Shadow(Shadow&&) noexcept;
  Shadow& operator=(Shadow&&) noexcept;
  size_t size() const;

 private:
  friend class Races;
  struct Cells;
  std::unique_ptr<Cells> cells_;
};

class Races {
 public:
  Races(uint32_t blocks, uint32_t threads_per_block);
  ~Races();

  // Notes an access of `size` bytes at `offset`, `at` being the number of the instruction, and
  // returns a race with an earlier one, if there is any. Accesses beyond the shadow are the
  // caller's error. Strong accesses also synchronise, as their order says; they are of 16 bytes at
  // most and aligned, and a vector of them is several. Of bytes that raced, the later write alone
  // is remembered. Epochs mean nothing to another grid: it needs new shadows.
  std::optional<Race> access(Shadow& shadow, uint64_t offset, uint32_t size, const Actor& actor,
                             const AccessKind& kind, uint32_t at);

  // Threads of one block met at a barrier: `threads` are numbers in the grid.
  void meet(const std::vector<uint32_t>& threads);

  void fence(uint32_t thread, Scope scope);

  // Groups of asynchronous copies of a thread. `commit` closes the open group and returns its
  // number; `wait` says that groups 0 .. count - 1 are complete and visible to the thread.
  uint32_t commit(uint32_t thread);
  void wait(uint32_t thread, uint32_t count);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ptx
