#include "races.h"

#include <algorithm>
#include <cassert>

#include "clocks.h"
#include "locations.h"
#include "shadow.h"

namespace ptx {

using namespace happens_before;

namespace {

// What a strong read observed before its thread came to a fence or an acquire that acquires it.
struct Pending {
  uint32_t location;
  Released released;
};

struct Thread {
  Knowledge knowledge;
  uint32_t open_group = 0;
  Released fenced;  // what the fences so far give to the strong writes after them
  std::vector<Pending> pending;
};

bool acquires(const AccessKind& kind) {
  return kind.access != Access::kWrite &&
         (kind.order == Order::kAcquire || kind.order == Order::kAcquireRelease);
}

bool releases(const AccessKind& kind) {
  return kind.access != Access::kRead &&
         (kind.order == Order::kRelease || kind.order == Order::kAcquireRelease);
}

Released publish(Knowledge& knowledge, Reach reach) {
  const ClockPtr all = knowledge.publish();
  return {all, reach == Reach::kGrid ? all : nullptr};
}

// Learns what an operation of this reach may acquire. Returns whether nothing is left for a later
// one of a greater reach.
bool acquire(Knowledge& knowledge, const Released& released, Reach reach) {
  knowledge.learn(released.to_block);
  if (reach != Reach::kGrid) return !released.to_grid;
  knowledge.learn(released.to_grid);
  return true;
}

// One access on its way through the cells.
class Visit {
 public:
  Visit(Lines& lines, const Knowledge& knowledge, const Slots& slots, const Note& note)
      : lines_(lines), knowledge_(knowledge), slots_(slots), note_(note) {}

  void run(uint64_t offset, uint32_t size) {
    const uint64_t end = offset + size;
    for (line_ = offset / kLineBytes; line_ * kLineBytes < end; ++line_) {
      const uint64_t begin = line_ * kLineBytes;
      first_ = offset > begin ? static_cast<uint32_t>(offset - begin) : 0;
      last_ = end - begin < kLineBytes ? static_cast<uint32_t>(end - begin) : kLineBytes;
      overwrites_strong_ = false;
      visit<kLineBytes>(lines_.line(line_), 0);
      if (overwrites_strong_) lines_.overwrite(line_, first_, last_ - first_, nullptr);
    }
  }

  const std::optional<Race>& race() const { return race_; }

 private:
  template <uint32_t kBytes>
  void visit(Cell& cell, uint32_t begin) {
    const bool is_whole = first_ <= begin && begin + kBytes <= last_;
    if (cell.parts == 0) {
      if (is_whole) {
        touch(cell, begin);
        return;
      }
      lines_.split(cell);
    }
    if constexpr (kBytes > 1) {
      constexpr uint32_t kPart = kBytes / kParts;
      std::array<Cell, kParts>& parts = lines_.parts(cell);
      const uint32_t from = first_ > begin ? (first_ - begin) / kPart : 0;
      for (uint32_t i = from; i < kParts && begin + i * kPart < last_; ++i) {
        visit<kPart>(parts[i], begin + i * kPart);
      }
      if (is_whole) lines_.merge_if_equal(cell);
    }
  }

  void touch(Cell& cell, uint32_t begin) {
    if (note_.is_strong() || cell.others != 0) {
      touch_with_others(cell, begin);
      return;
    }
    if (!knowledge_.covers(cell.write)) report(begin, cell.write, Access::kWrite, cell.write_at);
    if (note_.writes()) {
      if (!knowledge_.covers(cell.read)) report(begin, cell.read, Access::kRead, cell.read_at);
      set_write(cell);
    } else if (knowledge_.covers(cell.read)) {
      set_read(cell);
    } else {
      lines_.add_other(cell, note_);
    }
  }

  void touch_with_others(Cell& cell, uint32_t begin) {
    if (!knowledge_.covers(cell.write)) report(begin, cell.write, Access::kWrite, cell.write_at);
    const bool read_is_before = knowledge_.covers(cell.read);
    if (note_.writes() && !read_is_before) report(begin, cell.read, Access::kRead, cell.read_at);
    if (cell.others != 0) {
      const bool is_weak_read = !note_.writes() && !note_.is_strong();
      if (is_weak_read && lines_.others(cell).are_many_readers()) {
        leave_few_readers(lines_.others(cell));
      } else {
        compare_with_others(cell, begin);
      }
    }

    if (note_.is_strong()) {
      lines_.add_other(cell, note_);
    } else if (note_.writes()) {
      set_write(cell);
    } else if (read_is_before) {
      set_read(cell);
    } else {
      lines_.add_other(cell, note_);
    }
  }

  // Readers are in the order of their reads. The last one of a thread stands for those before it.
  void leave_few_readers(Notes& readers) const {
    std::vector<Note>& list = readers.list;
    if (slot_of(list.back().epoch) == slot_of(note_.epoch)) list.pop_back();
    if (list.size() < readers.most) return;
    std::erase_if(list, [&](const Note& reader) { return knowledge_.covers(reader.epoch); });
    const auto slot = [](const Note& reader) { return slot_of(reader.epoch); };
    std::ranges::stable_sort(list, {}, slot);
    const auto kept = std::unique(list.rbegin(), list.rend(),
                                  [&](const Note& a, const Note& b) { return slot(a) == slot(b); });
    list.erase(list.begin(), kept.base());
    readers.most = std::max(Notes::kFew, 2 * list.size());
  }

  // Whoever races with an access that is forgotten here races with this one too. After a race, a
  // weak write stands alone.
  void compare_with_others(Cell& cell, uint32_t begin) {
    Notes& others = lines_.others(cell);
    others.has_strong = false;
    const bool is_weak_write = note_.writes() && !note_.is_strong();
    auto kept = others.list.begin();
    for (const Note& other : others.list) {
      const bool is_before = knowledge_.covers(other.epoch);
      if (!is_before && conflicts(other)) report(begin, other.epoch, other.access, other.at);
      overwrites_strong_ |= is_weak_write && other.is_strong() && other.writes();
      if (is_weak_write || (is_before && stands_for(other))) continue;
      others.has_strong |= other.is_strong();
      *kept++ = other;
    }
    others.list.erase(kept, others.list.end());
    if (others.list.empty()) lines_.forget_others(cell);
  }

  bool conflicts(const Note& other) {
    if (!note_.writes() && !other.writes()) return false;
    if (is_same_location(other) &&
        include_each_other(note_.reach, knowledge_.block(), other.reach, block_of(other))) {
      return false;
    }
    if (!other.is_strong() || !other.writes()) return true;
    const Location* location = lines_.find_location(line_, other.first, other.size);
    return location == nullptr || !location->was_observed_before(other.version, knowledge_);
  }

  // Does every later access that races with the other one, which is ordered before this one, race
  // with this one? A strong access conflicts with fewer than a weak one does, and the fewer, the
  // more its scope includes.
  bool stands_for(const Note& other) const {
    if (other.writes() && !note_.writes()) return false;
    if (!note_.is_strong()) return true;
    return is_same_location(other) && note_.reach <= other.reach &&
           block_of(other) == knowledge_.block();
  }

  bool is_same_location(const Note& other) const {
    return note_.is_strong() && other.is_strong() && note_.first == other.first &&
           note_.size == other.size;
  }

  uint32_t block_of(const Note& note) const { return slots_.block(slot_of(note.epoch)); }

  void set_write(Cell& cell) const {
    cell.write = note_.epoch;
    cell.write_at = note_.at;
    cell.read = 0;
    cell.read_at = 0;
  }

  void set_read(Cell& cell) const {
    cell.read = note_.epoch;
    cell.read_at = note_.at;
  }

  void report(uint32_t begin, Epoch earlier, Access access, uint32_t at) {
    const Actor actor = slots_.actor(slot_of(earlier));
    const bool is_with_write = access == Access::kWrite && !actor.is_copy;
    if (race_) {
      race_->is_with_writes_only &= is_with_write;
      return;
    }
    race_ = Race{line_ * kLineBytes + begin, actor, access, at, is_with_write};
  }

  Lines& lines_;
  const Knowledge& knowledge_;
  const Slots& slots_;
  const Note& note_;
  uint64_t line_ = 0;
  uint32_t first_ = 0;  // of the line's bytes
  uint32_t last_ = 0;
  bool overwrites_strong_ = false;
  std::optional<Race> race_;
};

}  // namespace

struct Shadow::Cells : Lines {
  using Lines::Lines;
};

Shadow::Shadow(size_t bytes) : cells_(std::make_unique<Cells>(bytes)) {}
Shadow::~Shadow() = default;
Shadow::Shadow(Shadow&&) noexcept = default;
Shadow& Shadow::operator=(Shadow&&) noexcept = default;
size_t Shadow::size() const { return cells_->bytes(); }

struct Races::State {
  State(uint32_t blocks, uint32_t threads_per_block) : slots(blocks, threads_per_block) {
    const ClockPtr nothing = std::make_shared<Clock>(slots);
    threads.reserve(size_t{blocks} * threads_per_block);
    for (uint32_t thread = 0; thread < blocks * threads_per_block; ++thread) {
      threads.push_back({Knowledge(nothing, slots.slot(thread)), 0, {}, {}});
    }
  }

  std::optional<Race> access(Lines& lines, uint64_t offset, uint32_t size,
                             const Knowledge& knowledge, const Note& note) const {
    Visit visit(lines, knowledge, slots, note);
    visit.run(offset, size);
    return visit.race();
  }

  std::optional<Race> strong_access(Lines& lines, uint64_t offset, uint32_t size, Thread& thread,
                                    const AccessKind& kind, uint32_t at);
  void note_pending(Thread& thread, const Location& location);
  void acquire_pending(Thread& thread, uint32_t location, Reach reach);
  void write(Lines& lines, uint64_t line, Thread& thread, const AccessKind& kind, bool observed,
             Note& note);

  Slots slots;
  std::vector<Thread> threads;
  uint32_t num_locations = 0;
  uint32_t num_sequences = 0;
};

std::optional<Race> Races::State::strong_access(Lines& lines, uint64_t offset, uint32_t size,
                                                Thread& thread, const AccessKind& kind,
                                                uint32_t at) {
  const uint64_t line = offset / kLineBytes;
  const auto first = static_cast<uint8_t>(offset % kLineBytes);
  Note note{thread.knowledge.now(),     at, kind.access, reach_of(kind.scope), first,
            static_cast<uint8_t>(size), {}};
  assert(first + size <= kLineBytes);

  const Location* location = lines.find_location(line, first, size);
  const bool observes = location != nullptr && kind.access != Access::kWrite &&
                        location->is_observed_by(note.reach, thread.knowledge.block());
  if (observes) note_pending(thread, *location);
  // What comes before a release is ordered before the acquire itself, too.
  if (location != nullptr && acquires(kind)) acquire_pending(thread, location->id(), note.reach);
  if (note.writes()) write(lines, line, thread, kind, observes, note);

  const std::optional<Race> race = access(lines, offset, size, thread.knowledge, note);
  // Only now, for it orders what comes after the read. That an atomic observes itself is no harm.
  if (observes) lines.find_location(line, first, size)->note_observer(note.epoch);
  return race;
}

void Races::State::note_pending(Thread& thread, const Location& location) {
  const Released released = location.released_to(thread.knowledge.block());
  if (released.empty()) return;
  for (Pending& pending : thread.pending) {
    if (pending.location == location.id()) {
      pending.released.add(released);
      return;
    }
  }
  thread.pending.push_back({location.id(), released});
}

void Races::State::acquire_pending(Thread& thread, uint32_t location, Reach reach) {
  std::erase_if(thread.pending, [&](const Pending& pending) {
    return pending.location == location && acquire(thread.knowledge, pending.released, reach);
  });
}

void Races::State::write(Lines& lines, uint64_t line, Thread& thread, const AccessKind& kind,
                         bool observed, Note& note) {
  Location& location = lines.location(line, note.first, note.size, num_locations);
  if (location.id() == num_locations) ++num_locations;
  lines.overwrite(line, note.first, note.size, &location);

  const uint32_t slot = thread.knowledge.slot();
  if (releases(kind)) location.note_release(slot, publish(thread.knowledge, note.reach));
  Released released = thread.fenced;
  released.add(location.release_by(slot));
  if (!observed) ++num_sequences;
  location.write(thread.knowledge, note.reach, released, observed, num_sequences);
  note.version = location.version();
}

Races::Races(uint32_t blocks, uint32_t threads_per_block)
    : state_(std::make_unique<State>(blocks, threads_per_block)) {}
Races::~Races() = default;

std::optional<Race> Races::access(Shadow& shadow, uint64_t offset, uint32_t size,
                                  const Actor& actor, const AccessKind& kind, uint32_t at) {
  Thread& thread = state_->threads[actor.thread];
  if (kind.scope != Scope::kNone) {
    return state_->strong_access(*shadow.cells_, offset, size, thread, kind, at);
  }
  Note note;
  note.epoch = actor.is_copy ? epoch_of(copies_of(thread.knowledge.slot()), thread.open_group + 1)
                             : thread.knowledge.now();
  note.at = at;
  note.access = kind.access;
  return state_->access(*shadow.cells_, offset, size, thread.knowledge, note);
}

void Races::meet(const std::vector<uint32_t>& threads) {
  if (threads.empty()) return;
  Join join(state_->threads[threads.front()].knowledge.base());
  const Clock* added = nullptr;
  for (const uint32_t thread : threads) {
    const Knowledge& knowledge = state_->threads[thread].knowledge;
    if (knowledge.base().get() != added) join.add(knowledge.base());
    added = knowledge.base().get();
    knowledge.tell(join);
  }
  const ClockPtr everything = join.finish();
  for (const uint32_t thread : threads) state_->threads[thread].knowledge.meet(everything);
}

void Races::fence(uint32_t thread, Scope scope) {
  Thread& fencing = state_->threads[thread];
  const Reach reach = reach_of(scope);
  std::erase_if(fencing.pending, [&](const Pending& pending) {
    return acquire(fencing.knowledge, pending.released, reach);
  });
  fencing.fenced.add(publish(fencing.knowledge, reach));
}

uint32_t Races::commit(uint32_t thread) { return state_->threads[thread].open_group++; }

void Races::wait(uint32_t thread, uint32_t count) {
  state_->threads[thread].knowledge.finish_copies(count);
}

}  // namespace ptx
