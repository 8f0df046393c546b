// Random programs against the memory model as the manual words it: all events are kept, with all
// that comes before each of them, and an access is compared with every earlier one.

#include <algorithm>
#include <array>
#include <bitset>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "../src/races.h"
#include "check.h"

namespace ptx::test {
namespace {

constexpr size_t kMostEvents = 192;
constexpr uint32_t kBytes = 40;      // more than two lines, the last one cut
constexpr uint32_t kFlagBytes = 16;  // the places of strong accesses, which few weak ones touch

using Events = std::bitset<kMostEvents>;

struct Event {
  enum class What { kAccess, kFence, kBarrier, kWait };

  What what = What::kAccess;
  Actor actor{0};
  Scope scope = Scope::kNone;  // of strong accesses and fences
  Order order = Order::kRelaxed;
  Access access = Access::kRead;
  uint32_t offset = 0;
  uint32_t size = 0;
  uint32_t group = 0;  // of a copy
  Events before;       // in base causality order
  Events observed;     // writes that precede this strong read in observation order

  bool is_access() const { return what == What::kAccess; }
  bool is_strong() const { return is_access() && scope != Scope::kNone; }
  bool writes() const { return is_access() && access != Access::kRead; }
  bool reads() const { return is_access() && access != Access::kWrite; }
  bool has_order(Order one) const { return order == one || order == Order::kAcquireRelease; }
  bool acquires() const { return is_strong() && reads() && has_order(Order::kAcquire); }
  bool releases() const { return is_strong() && writes() && has_order(Order::kRelease); }
  bool is_at_place_of(const Event& other) const {
    return offset == other.offset && size == other.size;
  }
  bool overlaps(const Event& other) const {
    return offset < other.offset + other.size && other.offset < offset + size;
  }
};

class Model {
 public:
  Model(uint32_t blocks, uint32_t threads_per_block)
      : threads_per_block_(threads_per_block),
        last_(blocks * threads_per_block),
        groups_(blocks * threads_per_block),
        writers_(kBytes) {}

  size_t num_events() const { return events_.size(); }
  const Event& event(size_t number) const { return events_[number]; }
  uint32_t group(uint32_t thread) const { return groups_[thread]; }
  void commit(uint32_t thread) { ++groups_[thread]; }

  // Completes an event that would be the next one.
  Event prepare(Event event) const {
    event.group = groups_[event.actor.thread];
    follow(event, last_[event.actor.thread]);
    if (event.is_strong() && event.reads()) event.observed = observe(event);
    if (event.acquires() || event.what == Event::What::kFence) synchronize(event);
    return event;
  }

  void add(const Event& event) {
    if (event.writes()) {
      for (uint32_t i = 0; i < event.size; ++i) writers_[event.offset + i] = events_.size();
    }
    if (!event.actor.is_copy) last_[event.actor.thread] = events_.size();
    events_.push_back(event);
  }

  void meet(const std::vector<uint32_t>& threads) {
    Event barrier;
    barrier.what = Event::What::kBarrier;
    for (const uint32_t thread : threads) follow(barrier, last_[thread]);
    for (const uint32_t thread : threads) last_[thread] = events_.size();
    events_.push_back(barrier);
  }

  void wait(uint32_t thread, uint32_t count) {
    Event wait;
    wait.what = Event::What::kWait;
    wait.actor.thread = thread;
    follow(wait, last_[thread]);
    for (size_t i = 0; i < events_.size(); ++i) {
      const Actor& actor = events_[i].actor;
      if (actor.is_copy && actor.thread == thread && events_[i].group < count) follow(wait, i);
    }
    add(wait);
  }

  // The earlier accesses with which it races. `leniently`: by an order in which a strong write that
  // was observed brings along what comes before it. The manual does not say so, but it is how a
  // detector may forget an older write behind a newer one.
  Events races_of(const Event& later, bool leniently) const {
    Events ordered = later.before;
    for (size_t reader = 0; reader < events_.size(); ++reader) {
      if (!later.before[reader]) continue;
      const Events& observed = events_[reader].observed;
      ordered |= observed;
      for (size_t write = 0; leniently && write < events_.size(); ++write) {
        if (observed[write]) ordered |= events_[write].before;
      }
    }
    Events races;
    for (size_t i = 0; i < events_.size(); ++i) {
      const Event& earlier = events_[i];
      if (!earlier.is_access() || !earlier.overlaps(later) || ordered[i]) continue;
      if (!earlier.writes() && !later.writes()) continue;
      races[i] = !are_morally_strong(earlier, later);
    }
    return races;
  }

 private:
  uint32_t block(const Event& event) const { return event.actor.thread / threads_per_block_; }

  static bool includes_grid(const Event& event) {
    return event.scope == Scope::kGpu || event.scope == Scope::kSystem;
  }

  // Operations of two threads, or of one, which are strong.
  bool are_morally_strong(const Event& a, const Event& b) const {
    if (a.scope == Scope::kNone || b.scope == Scope::kNone) return false;
    if (a.is_access() && b.is_access() && !a.is_at_place_of(b)) return false;
    return block(a) == block(b) || (includes_grid(a) && includes_grid(b));
  }

  void follow(Event& event, std::optional<size_t> earlier) const {
    if (!earlier) return;
    event.before |= events_[*earlier].before;
    event.before[*earlier] = true;
  }

  Events observe(const Event& read) const {
    const std::optional<size_t> writer = writers_[read.offset];
    for (uint32_t i = 0; i < read.size; ++i) {
      if (writers_[read.offset + i] != writer) return {};
    }
    if (!writer || !are_morally_strong(events_[*writer], read)) return {};
    Events observed = events_[*writer].observed;
    observed[*writer] = true;
    return observed;
  }

  // First operations of the release patterns that end with this write.
  Events releases_before(size_t write) const {
    Events first;
    for (size_t i = 0; i <= write; ++i) {
      if (i < write && !events_[write].before[i]) continue;
      if (events_[i].actor.thread != events_[write].actor.thread) continue;
      first[i] = events_[i].what == Event::What::kFence ||
                 (events_[i].releases() && events_[i].is_at_place_of(events_[write]));
    }
    return first;
  }

  // `event` is the last operation of acquire patterns: those of the reads of its thread before it,
  // and of itself.
  void synchronize(Event& event) const {
    std::vector<const Event*> reads{&event};
    for (const Event& read : events_) {
      if (read.actor.thread == event.actor.thread && !read.actor.is_copy) reads.push_back(&read);
    }
    for (const Event* read : reads) {
      if (event.is_access() && !read->is_at_place_of(event)) continue;
      for (size_t write = 0; write < events_.size(); ++write) {
        if (!read->observed[write]) continue;
        const Events first = releases_before(write);
        for (size_t i = 0; i < events_.size(); ++i) {
          if (first[i] && are_morally_strong(events_[i], event)) follow(event, i);
        }
      }
    }
  }

  uint32_t threads_per_block_;
  std::vector<Event> events_;
  std::vector<std::optional<size_t>> last_;
  std::vector<uint32_t> groups_;
  std::vector<std::optional<size_t>> writers_;  // of each byte
};

struct Tally {
  uint64_t ordered = 0;
  uint64_t racing = 0;
  uint64_t undecided = 0;
};

// A program of random operations, to its end or to its first race. Before some number of events,
// accesses that would race are left out.
class Program {
 public:
  Program(uint64_t seed, Tally& tally)
      : random_(seed),
        seed_(seed),
        blocks_(pick(1, 3)),
        threads_per_block_(pick(1, 4)),
        model_(blocks_, threads_per_block_),
        races_(blocks_, threads_per_block_),
        memory_(kBytes),
        tally_(tally) {}

  void run() {
    const uint32_t calm = pick(0, kMostEvents);  // events before a race may happen
    while (model_.num_events() < kMostEvents) {
      const uint32_t thread = pick(0, blocks_ * threads_per_block_ - 1);
      const uint32_t kind = pick(0, 99);
      if (kind < 40) {
        if (!access(weak_access(thread), calm)) return;
      } else if (kind < 70) {
        if (!access(strong_access(thread), calm)) return;
      } else if (kind < 80) {
        fence(thread);
      } else if (kind < 88) {
        meet(thread);
      } else if (kind < 94) {
        const uint32_t group = races_.commit(thread);
        if (group != model_.group(thread)) tell("the number of a group");
        model_.commit(thread);
      } else {
        const uint32_t count = pick(0, model_.group(thread));
        races_.wait(thread, count);
        model_.wait(thread, count);
      }
    }
  }

 private:
  uint32_t pick(uint32_t least, uint32_t most) {
    return std::uniform_int_distribution<uint32_t>(least, most)(random_);
  }

  template <typename T, size_t kCount>
  T one_of(const std::array<T, kCount>& choices) {
    return choices[pick(0, kCount - 1)];
  }

  Event weak_access(uint32_t thread) {
    Event event;
    event.actor = {thread, pick(0, 4) == 0};
    event.access = one_of(std::array{Access::kRead, Access::kRead, Access::kWrite});
    event.size = one_of(std::array<uint32_t, 7>{1, 2, 3, 4, 8, 16, 32});
    const uint32_t least = event.size > kFlagBytes || pick(0, 5) == 0 ? 0 : kFlagBytes;
    event.offset = pick(least, kBytes - event.size);
    if (pick(0, 2) != 0) event.offset -= event.offset % event.size;
    return event;
  }

  // Few places, so that values are read by others.
  Event strong_access(uint32_t thread) {
    Event event;
    event.actor = {thread};
    event.scope = random_scope();
    event.access = one_of(std::array{Access::kRead, Access::kWrite, Access::kAtomic});
    event.order = one_of(
        std::array{Order::kRelaxed, Order::kAcquire, Order::kRelease, Order::kAcquireRelease});
    event.size = pick(0, 9) == 0 ? one_of(std::array<uint32_t, 3>{2, 8, 16}) : 4;
    event.offset = event.size == 16 ? 0 : pick(0, 1) * event.size;
    return event;
  }

  Scope random_scope() {
    return one_of(
        std::array{Scope::kCta, Scope::kCluster, Scope::kGpu, Scope::kGpu, Scope::kSystem});
  }

  void fence(uint32_t thread) {
    Event event;
    event.what = Event::What::kFence;
    event.actor = {thread};
    event.scope = random_scope();
    races_.fence(thread, event.scope);
    model_.add(model_.prepare(event));
  }

  void meet(uint32_t thread) {
    const uint32_t first = thread / threads_per_block_ * threads_per_block_;
    std::vector<uint32_t> threads;
    const bool all = pick(0, 1) == 0;
    for (uint32_t i = 0; i < threads_per_block_; ++i) {
      if (all || pick(0, 1) == 0) threads.push_back(first + i);
    }
    races_.meet(threads);
    model_.meet(threads);
  }

  // False after a race, which ends a program.
  bool access(const Event& unordered, uint32_t calm) {
    const Event event = model_.prepare(unordered);
    const Events racing = model_.races_of(event, false);
    const bool races = racing.any();
    if (races && model_.num_events() < calm) return true;
    const bool is_undecided = races && model_.races_of(event, true).none();
    const std::optional<Race> found = races_.access(memory_, event.offset, event.size, event.actor,
                                                    {event.access, event.scope, event.order},
                                                    static_cast<uint32_t>(model_.num_events()));
    model_.add(event);
    tally_.ordered += !races;
    tally_.racing += races && !is_undecided;
    tally_.undecided += is_undecided;
    if (found && !races) tell("a race that is none");
    if (!found && races && !is_undecided) tell("no race");
    if (found && races) compare(*found, event, racing);
    return !found && !races;
  }

  void compare(const Race& found, const Event& later, const Events& racing) {
    const uint32_t at = found.earlier_at;
    if (at >= model_.num_events() || !racing[at]) {
      tell("a race with event " + std::to_string(at));
      return;
    }
    const Event& earlier = model_.event(at);
    if (found.earlier.thread != earlier.actor.thread ||
        found.earlier.is_copy != earlier.actor.is_copy || found.earlier_access != earlier.access) {
      tell("another actor or access than that of the event");
    }
    if (found.offset != std::max(later.offset, earlier.offset)) tell("another first byte");
  }

  void tell(const std::string& what) const {
    expect(false, what, " at event ", model_.num_events(), " of program ", seed_);
  }

  std::mt19937_64 random_;
  uint64_t seed_;
  uint32_t blocks_;
  uint32_t threads_per_block_;
  Model model_;
  Races races_;
  Shadow memory_;
  Tally& tally_;
};

}  // namespace

TEST(random_programs_race_as_the_manual_says) {
  constexpr uint64_t kPrograms = 6000;
  Tally tally;
  for (uint64_t seed = 0; seed < kPrograms; ++seed) Program(seed, tally).run();
  expect(tally.ordered > 20 * kPrograms, "few accesses are ordered: ", tally.ordered);
  expect(tally.racing > kPrograms / 2, "few accesses race: ", tally.racing);
  expect(tally.undecided < kPrograms / 20, "many accesses are undecided: ", tally.undecided);
}

}  // namespace ptx::test
