// Asynchronous copies from global to shared memory, and their groups.

#include <algorithm>

#include "access.h"
#include "build.h"
#include "lanes.h"

namespace ptx {
namespace {

using I = const Instruction&;

// from[0] is the address in shared memory, from[1] that in global memory (`i.offset` and `i.target`
// are added), from[2], if any, the bytes that are copied: the rest becomes zero.
void start_copy(Warp& warp, I i, uint32_t mask) {
  WarpAccess to_shared(warp, i);
  WarpAccess from_global(warp, i);
  each_lane(mask, [&](int l) {
    const uint64_t to = warp.row(i.from[0])[l] + static_cast<uint64_t>(i.offset);
    const uint64_t from =
        warp.row(i.from[1])[l] + static_cast<uint64_t>(int64_t{static_cast<int32_t>(i.target)});
    uint32_t bytes = i.bytes;
    if (i.sources > 2) {
      bytes = static_cast<uint32_t>(warp.row(i.from[2])[l]);
      if (bytes > i.bytes) {
        warp.grid().report("bad_copy", "More bytes are to be copied than the instruction moves.",
                           warp, i, l);
        bytes = i.bytes;
      }
    }
    const Place target = to_shared.locate(l, to, i.bytes, Space::kShared);
    if (target.region == nullptr) return;
    PendingCopy copy = {nullptr, 0, bytes, target.offset, i.bytes};
    if (bytes > 0) {
      // The address has to suit the whole size, whatever part of it is read.
      if (from % i.bytes != 0) {
        warp.grid().report("misaligned", "The source of a copy is no multiple of its size.", warp,
                           i, l);
        return;
      }
      const Place source = from_global.locate(l, from, bytes, Space::kGlobal);
      if (source.region == nullptr) return;
      from_global.start_copy_from(l, source, bytes);
      copy.from = source.region;
      copy.from_offset = source.offset;
    }
    to_shared.start_copy_to(l, target, i.bytes);
    warp.copies(l).open.push_back(copy);
  });
}

void commit(Warp& warp, I i, uint32_t mask) {
  (void)i;
  each_lane(mask, [&](int l) {
    CopyQueue& queue = warp.copies(l);
    queue.groups.push_back(std::move(queue.open));
    queue.open.clear();
    ++queue.committed;
    if (warp.grid().races() != nullptr) warp.grid().races()->commit(warp.grid_thread(l));
    // Races are found all the same: they are noted by group.
    if (!warp.grid().options().copies_late) warp.grid().deliver_copies(warp, l);
  });
}

void wait_group(Warp& warp, I i, uint32_t mask) {
  each_lane(mask,
            [&](int l) { warp.grid().finish_copies(warp, l, static_cast<uint32_t>(i.offset)); });
}

void wait_all(Warp& warp, I i, uint32_t mask) {
  (void)i;
  each_lane(mask, [&](int l) { warp.grid().finish_all_copies(warp, l); });
}

// createpolicy makes a hint for caches; its value is never looked at.
void make_policy(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) { warp.row(i.to[0])[l] = 0; });
}

bool select_group(Builder& b) {
  Instruction& i = b.instruction();
  if (b.take("commit_group")) {
    i.run = commit;
    return true;
  }
  if (b.take("wait_group")) {
    if (b.operand(0).kind != OperandKind::kInteger) b.refuse("expected a number of groups");
    i.offset = static_cast<int64_t>(b.operand(0).value);
    i.run = wait_group;
    return true;
  }
  if (b.take("wait_all")) {
    i.run = wait_all;
    return true;
  }
  return false;
}

}  // namespace

bool select_copy(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  if (op == "createpolicy") {
    for (const std::string& modifier : b.statement().modifiers) b.take(modifier);
    b.result(b.operand(0));
    i.run = make_policy;
    return true;
  }
  if (op != "cp" || !b.take("async")) return false;
  if (select_group(b)) return true;
  const bool skips_l1 = b.take("cg");
  if (!skips_l1 && !b.take("ca")) return false;
  if ((!b.take("shared") && !b.take("shared::cta")) || !b.take("global")) return false;
  bool has_policy = false;
  while (const std::optional<std::string> hint = b.take_prefix("L2::")) {
    if (*hint == "L2::cache_hint") has_policy = true;
  }
  b.address(b.operand(0));
  const int64_t to_offset = i.offset;
  i.offset = 0;
  b.address(b.operand(1));
  i.target = static_cast<uint32_t>(static_cast<int32_t>(i.offset));
  i.offset = to_offset;
  const uint64_t bytes = b.operand(2).value;
  if (b.operand(2).kind != OperandKind::kInteger || (bytes != 4 && bytes != 8 && bytes != 16)) {
    b.refuse("expected a size of 4, 8 or 16 bytes");
  }
  if (skips_l1 && bytes != 16) b.refuse("`.cg` copies 16 bytes");
  i.bytes = static_cast<uint8_t>(bytes);
  const size_t operands = b.operand_count() - (has_policy ? 1 : 0);
  if (operands > 3) {
    if (b.width_of(b.operand(3)) == 1) b.refuse("a predicate to ignore the source is not known");
    b.source(b.operand(3), Type::kB32);
  }
  if (operands > 4) b.refuse("expected no more than a size of the source");
  i.run = start_copy;
  return true;
}

}  // namespace ptx
