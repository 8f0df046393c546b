// Loads, stores and fences.

#include <algorithm>
#include <cstring>

#include "access.h"
#include "build.h"
#include "lanes.h"

namespace ptx {
namespace {

using I = const Instruction&;

uint64_t low_bits(uint32_t bytes) {
  return bytes >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * bytes)) - 1;
}

// Sign bits fill the register, which has `width` bytes.
uint64_t extended(uint64_t value, uint32_t bytes, uint32_t width) {
  const uint32_t shift = 64 - 8 * bytes;
  return static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift) & low_bits(width);
}

// `choice` is the width of the result's registers; `flag` says that the bytes are constant.
void load(Warp& warp, I i, uint32_t mask) {
  const uint64_t* base = warp.row(i.from[0]);
  const uint32_t bytes = uint32_t{i.bytes} * i.elements;
  WarpAccess access(warp, i);
  each_lane(mask, [&](int l) {
    std::byte buffer[64] = {};
    const Place place = access.locate(l, base[l] + static_cast<uint64_t>(i.offset), bytes, i.space);
    if (place.region != nullptr) {
      if (i.flag) access.expect_constant(l, place, bytes);
      access.read(l, place, buffer, bytes);
    }
    for (uint32_t n = 0; n < i.elements; ++n) {
      uint64_t value = 0;
      std::memcpy(&value, buffer + n * i.bytes, i.bytes);
      if (i.is_signed) value = extended(value, i.bytes, i.choice);
      warp.row(i.to[n])[l] = value;
    }
  });
}

void store(Warp& warp, I i, uint32_t mask) {
  const uint64_t* base = warp.row(i.from[0]);
  const uint32_t bytes = uint32_t{i.bytes} * i.elements;
  WarpAccess access(warp, i);
  each_lane(mask, [&](int l) {
    std::byte buffer[64];
    for (uint32_t n = 0; n < i.elements; ++n) {
      std::memcpy(buffer + n * i.bytes, &warp.row(i.from[1 + n])[l], i.bytes);
    }
    const Place place = access.locate(l, base[l] + static_cast<uint64_t>(i.offset), bytes, i.space);
    if (place.region != nullptr) access.write(l, place, buffer, bytes);
  });
}

// Parameters of the kernel: the same for all threads, written by the host.
void load_parameter(Warp& warp, I i, uint32_t mask) {
  const std::vector<std::byte>& parameters = warp.grid().parameters();
  const uint64_t* base = warp.row(i.from[0]);
  each_lane(mask, [&](int l) {
    const uint64_t offset = base[l] + static_cast<uint64_t>(i.offset);
    const uint64_t bytes = uint64_t{i.bytes} * i.elements;
    if (offset > parameters.size() || parameters.size() - offset < bytes) {
      warp.grid().report("out_of_bounds", "A parameter is read beyond the last one.", warp, i, l);
      return;
    }
    if (offset % bytes != 0) {
      warp.grid().report("misaligned", "A parameter is read at no multiple of the size.", warp, i,
                         l);
    }
    for (uint32_t n = 0; n < i.elements; ++n) {
      uint64_t value = 0;
      std::memcpy(&value, parameters.data() + offset + n * i.bytes, i.bytes);
      if (i.is_signed) value = extended(value, i.bytes, i.choice);
      warp.row(i.to[n])[l] = value;
    }
  });
}

void run_fence(Warp& warp, I i, uint32_t mask) {
  if (warp.grid().races() == nullptr) return;
  each_lane(mask, [&](int l) { warp.grid().races()->fence(warp.grid_thread(l), i.access.scope); });
}

// Hints where to keep what was loaded, which change no result.
void take_cache_hints(Builder& b, bool& has_policy) {
  for (const std::string_view name : {"ca", "cg", "cs", "lu", "cv", "wb", "wt", "unified"}) {
    b.take(name);
  }
  while (b.take_prefix("L1::").has_value()) {
  }
  while (const std::optional<std::string> hint = b.take_prefix("L2::")) {
    if (*hint == "L2::cache_hint") has_policy = true;
  }
}

bool select_access(Builder& b) {
  Instruction& i = b.instruction();
  const bool loads = b.statement().opcode == "ld" || b.statement().opcode == "ldu";
  if (!loads && b.statement().opcode != "st") return false;
  i.access.access = loads ? Access::kRead : Access::kWrite;
  take_strength(b, i.access);
  i.space = b.take_space().value_or(Space::kGeneric);
  bool has_policy = false;
  i.flag = b.take("nc");
  take_cache_hints(b, has_policy);
  i.elements = static_cast<uint8_t>(b.take_vector());
  const Type type = b.take_type();
  i.bytes = static_cast<uint8_t>(size_of(type));
  i.is_signed = type == Type::kS8 || type == Type::kS16 || type == Type::kS32 || type == Type::kS64;
  if (type == Type::kB128) b.refuse("registers of 128 bits are not known");
  if (i.bytes * i.elements > 32) b.refuse("vectors of more than 32 bytes are not known");
  const Operand& value = b.operand(loads ? 0 : 1);
  b.address(b.operand(loads ? 1 : 0));
  if (loads) {
    b.results(value);
    i.choice = static_cast<uint8_t>(b.width_of(value));
    if (i.results != i.elements) b.refuse("expected as many registers as elements");
  } else {
    b.sources(value, type);
    if (i.sources != 1 + i.elements) b.refuse("expected as many registers as elements");
  }
  if (i.space == Space::kParam) {
    if (!loads) b.refuse("parameters of calls are not known");
    i.run = load_parameter;
    return true;
  }
  i.run = loads ? load : store;
  return true;
}

bool select_fence(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  if (op == "membar") {
    if (b.take("gl")) i.access.scope = Scope::kGpu;
    if (b.take("cta")) i.access.scope = Scope::kCta;
    if (b.take("sys")) i.access.scope = Scope::kSystem;
    i.run = run_fence;
    return i.access.scope != Scope::kNone;
  }
  if (op != "fence") return false;
  if (b.take_prefix("proxy")) b.refuse("other proxies than the generic one are not known");
  if (!b.take("acq_rel") && !b.take("sc")) return false;
  take_strength(b, i.access);
  i.run = run_fence;
  return i.access.scope != Scope::kNone;
}

}  // namespace

void take_strength(Builder& b, AccessKind& access) {
  if (b.take("weak")) return;
  if (b.take("volatile")) {
    access.scope = Scope::kSystem;
    return;
  }
  b.take("relaxed");
  if (b.take("acquire")) access.order = Order::kAcquire;
  if (b.take("release")) access.order = Order::kRelease;
  if (b.take("acq_rel")) access.order = Order::kAcquireRelease;
  if (b.take("cta")) access.scope = Scope::kCta;
  if (b.take("cluster")) access.scope = Scope::kCluster;
  if (b.take("gpu")) access.scope = Scope::kGpu;
  if (b.take("sys")) access.scope = Scope::kSystem;
}

bool select_memory(Builder& b) { return select_access(b) || select_fence(b); }

}  // namespace ptx
