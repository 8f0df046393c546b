// Atomics: lanes one after the other, as hardware serialises them.

#include <algorithm>
#include <cstring>

#include "access.h"
#include "build.h"
#include "lanes.h"

namespace ptx {
namespace {

using I = const Instruction&;

enum Operation : uint8_t { kAdd, kMin, kMax, kInc, kDec, kAnd, kOr, kXor, kExch, kCas };

// Sums of f32 in global memory flush subnormal numbers, those in shared memory don't: `space`.
template <typename V>
V applied(V old, V a, V b, I i, Space space) {
  const uint8_t operation = i.choice;
  switch (operation) {
    case kMin:
      return std::min(old, a);
    case kMax:
      return std::max(old, a);
    case kExch:
      return a;
    case kCas:
      return old == a ? b : old;
    default:
      break;
  }
  if constexpr (std::is_integral_v<V>) {
    using U = std::make_unsigned_t<V>;
    switch (operation) {
      case kAdd:
        return static_cast<V>(static_cast<U>(old) + static_cast<U>(a));
      case kInc:
        return static_cast<V>(static_cast<U>(old) >= static_cast<U>(a) ? 0
                                                                       : static_cast<U>(old) + 1);
      case kDec:
        return static_cast<V>(old == 0 || static_cast<U>(old) > static_cast<U>(a)
                                  ? static_cast<U>(a)
                                  : static_cast<U>(old) - 1);
      case kAnd:
        return static_cast<V>(old & a);
      case kOr:
        return static_cast<V>(old | a);
      default:
        return static_cast<V>(old ^ a);
    }
  } else {
    return add(old, a, {.flushes = sizeof(V) == 4 && space == Space::kGlobal});
  }
}

// Two halves in a word; `is_pair` false: one.
template <Half format>
uint32_t add_halves(uint32_t old, uint32_t a, bool is_pair) {
  const uint32_t low = add(format, static_cast<uint16_t>(old), static_cast<uint16_t>(a), {});
  if (!is_pair) return low;
  return low |
         uint32_t{add(format, static_cast<uint16_t>(old >> 16), static_cast<uint16_t>(a >> 16), {})}
             << 16;
}

template <typename V>
uint64_t applied_bits(uint64_t old, uint64_t a, uint64_t b, I i, Space space) {
  return put<V>(applied(get<V>(old), get<V>(a), get<V>(b), i, space));
}
template <Half format>
uint64_t applied_halves(uint64_t old, uint64_t a, uint64_t /*b*/, I i, Space /*space*/) {
  return add_halves<format>(static_cast<uint32_t>(old), static_cast<uint32_t>(a), i.bytes == 4);
}

// `elements` atomics next to each other, each of `bytes`.
template <auto apply>
void run_atomic(Warp& warp, I i, uint32_t mask) {
  const uint64_t* base = warp.row(i.from[0]);
  WarpAccess access(warp, i);
  each_lane(mask, [&](int l) {
    for (uint32_t n = 0; n < i.elements; ++n) {
      const uint64_t address = base[l] + static_cast<uint64_t>(i.offset) + n * i.bytes;
      const Place place = access.locate(l, address, i.bytes, i.space);
      if (place.region == nullptr) continue;
      uint64_t old = 0;
      std::byte buffer[8] = {};
      access.read_atomic(l, place, buffer, i.bytes);
      std::memcpy(&old, buffer, i.bytes);
      const uint64_t a = warp.row(i.from[1 + n])[l];
      const uint64_t b = i.choice == kCas ? warp.row(i.from[2])[l] : 0;
      const uint64_t now = apply(old, a, b, i, place.space);
      std::memcpy(buffer, &now, i.bytes);
      access.write_atomic(l, place, buffer, i.bytes);
      if (i.results > 0) warp.row(i.to[n])[l] = old;
    }
  });
}

uint8_t take_operation(Builder& b) {
  constexpr std::pair<std::string_view, Operation> kNames[] = {
      {"add", kAdd}, {"min", kMin}, {"max", kMax}, {"inc", kInc},   {"dec", kDec},
      {"and", kAnd}, {"or", kOr},   {"xor", kXor}, {"exch", kExch}, {"cas", kCas}};
  for (const auto& [name, operation] : kNames) {
    if (b.take(name)) return operation;
  }
  b.refuse("expected an operation among the modifiers");
}

}  // namespace

bool select_atomic(Builder& b) {
  Instruction& i = b.instruction();
  const bool returns = b.statement().opcode == "atom";
  if (!returns && b.statement().opcode != "red") return false;
  if (b.take("async")) b.refuse("asynchronous reductions are not known");
  i.access.access = Access::kAtomic;
  take_strength(b, i.access);
  if (i.access.scope == Scope::kNone) i.access.scope = Scope::kGpu;
  i.space = b.take_space().value_or(Space::kGeneric);
  i.choice = take_operation(b);
  b.take("noftz");
  bool has_policy = false;
  while (const std::optional<std::string> hint = b.take_prefix("L2::")) {
    if (*hint == "L2::cache_hint") has_policy = true;
  }
  i.elements = static_cast<uint8_t>(b.take_vector());
  const Type type = b.take_type();
  i.bytes = static_cast<uint8_t>(size_of(type));
  size_t next = 0;
  if (returns) b.results(b.operand(next++));
  b.address(b.operand(next++));
  b.sources(b.operand(next++), type);
  if (i.choice == kCas) b.source(b.operand(next++), type);
  if (b.operand_count() > next + (has_policy ? 1 : 0)) b.refuse("has too many operands");
  switch (type) {
    case Type::kU32:
    case Type::kB32:
      i.run = run_atomic<applied_bits<uint32_t>>;
      return true;
    case Type::kS32:
      i.run = run_atomic<applied_bits<int32_t>>;
      return true;
    case Type::kU64:
    case Type::kB64:
      i.run = run_atomic<applied_bits<uint64_t>>;
      return true;
    case Type::kS64:
      i.run = run_atomic<applied_bits<int64_t>>;
      return true;
    case Type::kB16:
      i.run = run_atomic<applied_bits<uint16_t>>;
      return true;
    case Type::kF32:
      i.run = run_atomic<applied_bits<float>>;
      return i.choice == kAdd;
    case Type::kF64:
      i.run = run_atomic<applied_bits<double>>;
      return i.choice == kAdd;
    case Type::kF16:
    case Type::kF16x2:
      i.run = run_atomic<applied_halves<Half::kF16>>;
      return i.choice == kAdd;
    case Type::kBf16:
    case Type::kBf16x2:
      i.run = run_atomic<applied_halves<Half::kBf16>>;
      return i.choice == kAdd;
    default:
      return false;
  }
}

}  // namespace ptx
