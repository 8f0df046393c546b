// Logic, shifts, and the bits inside a word.

#include <algorithm>
#include <bit>

#include "integers.h"

namespace ptx {
namespace {

uint64_t and_of(uint64_t a, uint64_t b, I) { return a & b; }
uint64_t or_of(uint64_t a, uint64_t b, I) { return a | b; }
uint64_t xor_of(uint64_t a, uint64_t b, I) { return a ^ b; }
template <typename V>
V not_of(V a, I) {
  return static_cast<V>(~a);
}
bool not_of_predicate(uint64_t a, I) { return a == 0; }
template <typename V>
V is_zero(V a, I) {
  return a == 0;
}

// Shifts by more than the width shift everything out.
template <typename V>
void shift_left(Warp& warp, I i, uint32_t mask) {
  uint64_t* to = warp.row(i.to[0]);
  const uint64_t* a = warp.row(i.from[0]);
  const uint64_t* b = warp.row(i.from[1]);
  each_lane(mask, [&](int l) {
    const uint32_t by = static_cast<uint32_t>(b[l]);
    to[l] = by >= kBits<V> ? 0 : put<V>(static_cast<V>(get<V>(a[l]) << by));
  });
}
template <typename V>
void shift_right(Warp& warp, I i, uint32_t mask) {
  uint64_t* to = warp.row(i.to[0]);
  const uint64_t* a = warp.row(i.from[0]);
  const uint64_t* b = warp.row(i.from[1]);
  each_lane(mask, [&](int l) {
    const uint32_t by = static_cast<uint32_t>(b[l]);
    const V value = get<V>(a[l]);
    const V all_out = value < 0 ? static_cast<V>(~V{0}) : V{0};
    to[l] = put<V>(by >= kBits<V> ? all_out : static_cast<V>(value >> by));
  });
}

// shf: `flag` is the left one, how.saturates clamps the shift.
uint32_t funnel(uint32_t low, uint32_t high, uint32_t by, I i) {
  const uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
  const uint32_t n = i.how.saturates ? std::min(by, 32u) : by & 31u;
  if (i.flag) return static_cast<uint32_t>((n == 0 ? both : both << n) >> 32);
  return static_cast<uint32_t>(both >> n);
}

uint32_t look_up3(uint32_t a, uint32_t b, uint32_t c, I i) {
  uint32_t result = 0;
  for (uint32_t entry = 0; entry < 8; ++entry) {
    if ((i.table >> entry & 1) == 0) continue;
    result |=
        ((entry & 4) != 0 ? a : ~a) & ((entry & 2) != 0 ? b : ~b) & ((entry & 1) != 0 ? c : ~c);
  }
  return result;
}

// prmt: `choice` is the mode, 0 the general one.
enum Permute : uint8_t { kAny, kF4e, kB4e, kRc8, kEcl, kEcr, kRc16 };
uint32_t permute_selector(uint8_t mode, uint32_t selector) {
  const uint32_t n = selector & 3;
  constexpr uint32_t kForward[] = {0x3210, 0x4321, 0x5432, 0x6543};
  constexpr uint32_t kBackward[] = {0x5670, 0x6701, 0x7012, 0x0123};
  constexpr uint32_t kClampLeft[] = {0x3210, 0x3211, 0x3222, 0x3333};
  constexpr uint32_t kClampRight[] = {0x0000, 0x1110, 0x2210, 0x3210};
  constexpr uint32_t kHalves[] = {0x1010, 0x3232, 0x1010, 0x3232};
  switch (mode) {
    case kF4e:
      return kForward[n];
    case kB4e:
      return kBackward[n];
    case kRc8:
      return 0x1111 * n;
    case kEcl:
      return kClampLeft[n];
    case kEcr:
      return kClampRight[n];
    case kRc16:
      return kHalves[n];
    default:
      return selector;
  }
}
uint32_t permute(uint32_t a, uint32_t b, uint32_t selector, I i) {
  const uint64_t bytes = (static_cast<uint64_t>(b) << 32) | a;
  const uint32_t chosen = permute_selector(i.choice, selector);
  uint32_t result = 0;
  for (uint32_t n = 0; n < 4; ++n) {
    const uint32_t nibble = chosen >> (4 * n) & 15;
    uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (nibble & 7))) & 255;
    // The top bit of the selector spreads the sign instead; only the general mode has it.
    if ((nibble & 8) != 0 && i.choice == kAny) byte = (byte & 128) != 0 ? 255 : 0;
    result |= byte << (8 * n);
  }
  return result;
}

template <typename V>
uint32_t count_ones(V a, I) {
  return static_cast<uint32_t>(std::popcount(a));
}
template <typename V>
uint32_t count_leading(V a, I) {
  return static_cast<uint32_t>(std::countl_zero(a));
}
template <typename V>
V reverse_bits(V a, I) {
  V result = 0;
  for (int n = 0; n < kBits<V>; ++n) result = static_cast<V>(result << 1 | (a >> n & 1));
  return result;
}
// The highest bit that differs from the sign; `flag` asks for its distance from the top.
template <typename V>
uint32_t find_bit(V a, I i) {
  Unsigned<V> bits = static_cast<Unsigned<V>>(a);
  if (a < 0) bits = static_cast<Unsigned<V>>(~bits);
  if (bits == 0) return UINT32_MAX;
  const int zeros = std::countl_zero(bits);
  return static_cast<uint32_t>(i.flag ? zeros : kBits<V> - 1 - zeros);
}
template <typename V>
V extract_field(V a, uint32_t position, uint32_t length) {
  const uint32_t p = position & 255;
  const uint32_t n = length & 255;
  if (n == 0) return 0;
  const uint32_t top = std::min<uint32_t>(p + n - 1, kBits<V> - 1);
  const bool is_negative = std::is_signed_v<V> && (static_cast<Unsigned<V>>(a) >> top & 1) != 0;
  Unsigned<V> result = is_negative ? static_cast<Unsigned<V>>(~Unsigned<V>{0}) : Unsigned<V>{0};
  for (uint32_t k = 0; k < std::min<uint32_t>(n, kBits<V>); ++k) {
    const bool bit =
        p + k < kBits<V> ? (static_cast<Unsigned<V>>(a) >> (p + k) & 1) != 0 : is_negative;
    const Unsigned<V> place = static_cast<Unsigned<V>>(Unsigned<V>{1} << k);
    result =
        static_cast<Unsigned<V>>(bit ? result | place : result & static_cast<Unsigned<V>>(~place));
  }
  return static_cast<V>(result);
}
template <typename V>
void extract_fields(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    warp.row(i.to[0])[l] = put<V>(extract_field(get<V>(warp.row(i.from[0])[l]),
                                                static_cast<uint32_t>(warp.row(i.from[1])[l]),
                                                static_cast<uint32_t>(warp.row(i.from[2])[l])));
  });
}
template <typename V>
void insert_fields(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    const V field = get<V>(warp.row(i.from[0])[l]);
    V result = get<V>(warp.row(i.from[1])[l]);
    const uint32_t position = static_cast<uint32_t>(warp.row(i.from[2])[l]) & 255;
    const uint32_t length = static_cast<uint32_t>(warp.row(i.from[3])[l]) & 255;
    for (uint32_t k = 0; k < length && position + k < kBits<V>; ++k) {
      const V place = static_cast<V>(V{1} << (position + k));
      result =
          static_cast<V>((field >> k & 1) != 0 ? result | place : result & static_cast<V>(~place));
    }
    warp.row(i.to[0])[l] = put<V>(result);
  });
}

// `length` ones from bit `position` on; `how.saturates` clamps both, else they wrap.
uint32_t bit_mask(uint32_t position, uint32_t length, I i) {
  const uint32_t p = i.how.saturates ? std::min(position, 32u) : position & 31;
  const uint32_t n = i.how.saturates ? std::min(length, 32u) : length & 31;
  const uint64_t ones = (uint64_t{1} << n) - 1;
  return static_cast<uint32_t>(p >= 32 ? 0 : ones << p);
}

// szext: what lies above the lowest `length` bits becomes their sign, or zero.
template <typename V>
V extend(V a, V length, I i) {
  const uint32_t n = static_cast<uint32_t>(length);
  if (i.how.saturates && n >= 32) return a;
  if ((n & 31) == 0) return 0;
  const uint32_t shift = 32 - (n & 31);
  return static_cast<V>(Unsigned<V>(a) << shift) >> shift;
}

// fns: the place of the `offset`-th one of `bits` from `base` on, downwards if it is negative.
uint32_t find_nth(uint32_t bits, uint32_t base, uint32_t offset, I) {
  const int32_t n = static_cast<int32_t>(offset);
  if (n == 0) return base < 32 && (bits >> base & 1) != 0 ? base : UINT32_MAX;
  uint32_t left = n > 0 ? offset : 0 - offset;
  for (uint32_t place = base; place < 32; place += n > 0 ? 1u : UINT32_MAX) {
    if ((bits >> place & 1) != 0 && --left == 0) return place;
  }
  return UINT32_MAX;
}

// dp4a, dp2a: `flag` and `choice2` say which sides are signed, `choice` which half of b dp2a takes.
int64_t part(uint32_t word, int index, int bits, bool is_signed) {
  const uint32_t field = word >> (index * bits) & ((1u << bits) - 1);
  const bool is_negative = is_signed && (field >> (bits - 1) & 1) != 0;
  return static_cast<int64_t>(field) - (is_negative ? int64_t{1} << bits : 0);
}
uint32_t dot4(uint32_t a, uint32_t b, uint32_t c, I i) {
  int64_t sum = c;
  for (int n = 0; n < 4; ++n) sum += part(a, n, 8, i.flag) * part(b, n, 8, i.choice2 != 0);
  return static_cast<uint32_t>(sum);
}
uint32_t dot2(uint32_t a, uint32_t b, uint32_t c, I i) {
  int64_t sum = c;
  for (int n = 0; n < 2; ++n) {
    sum += part(a, n, 16, i.flag) * part(b, n + 2 * i.choice, 8, i.choice2 != 0);
  }
  return static_cast<uint32_t>(sum);
}

bool select_logic(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  if (op != "and" && op != "or" && op != "xor" && op != "not" && op != "cnot") return false;
  const Type type = b.take_type();
  b.result(b.operand(0));
  take_sources(b, 1, type);
  if (op == "and") i.run = binary<uint64_t, uint64_t, and_of>;
  if (op == "or") i.run = binary<uint64_t, uint64_t, or_of>;
  if (op == "xor") i.run = binary<uint64_t, uint64_t, xor_of>;
  if (op == "not" && type == Type::kPred) i.run = unary<bool, uint64_t, not_of_predicate>;
  if (op == "cnot" || (op == "not" && type != Type::kPred)) {
    with_integer(type, [&](auto zero) {
      using V = decltype(zero);
      i.run = op == "not" ? unary<V, V, not_of<V>> : unary<V, V, is_zero<V>>;
    });
  }
  return i.run != nullptr;
}

bool select_bits(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  if (op == "shl" || op == "shr") {
    const Type type = b.take_type();
    b.result(b.operand(0));
    b.source(b.operand(1), type);
    b.source(b.operand(2), Type::kB32);
    return with_integer(type, [&](auto zero) {
      using V = decltype(zero);
      i.run = op == "shl" ? shift_left<V> : shift_right<V>;
    });
  }
  if (op == "shf") {
    i.flag = b.take("l");
    if (!i.flag && !b.take("r")) return false;
    i.how.saturates = b.take("clamp");
    if (!i.how.saturates && !b.take("wrap")) return false;
    const Type type = b.take_type();
    b.result(b.operand(0));
    take_sources(b, 1, type);
    i.run = ternary<uint32_t, uint32_t, funnel>;
    return true;
  }
  if (op == "lop3") {
    if (!b.take("b32") || b.operand_count() != 5) return false;
    b.result(b.operand(0));
    for (size_t n = 1; n < 4; ++n) b.source(b.operand(n), Type::kB32);
    i.table = static_cast<uint32_t>(b.operand(4).value);
    i.run = ternary<uint32_t, uint32_t, look_up3>;
    return true;
  }
  if (op == "prmt") {
    if (!b.take("b32")) return false;
    constexpr std::string_view kModes[] = {"", "f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
    for (uint8_t mode = 1; mode < std::size(kModes); ++mode) {
      if (b.take(kModes[mode])) i.choice = mode;
    }
    b.result(b.operand(0));
    take_sources(b, 1, Type::kB32);
    i.run = ternary<uint32_t, uint32_t, permute>;
    return true;
  }
  if (op == "bfe" || op == "bfi") {
    const Type type = b.take_type();
    b.result(b.operand(0));
    for (size_t n = 1; n < b.operand_count(); ++n) {
      const bool is_value = n == 1 || (op == "bfi" && n == 2);
      b.source(b.operand(n), is_value ? type : Type::kB32);
    }
    return with_integer(type, [&](auto zero) {
      using V = decltype(zero);
      if (op == "bfe") i.run = extract_fields<V>;
      if constexpr (std::is_unsigned_v<V>) {
        if (op == "bfi") i.run = insert_fields<V>;
      }
    });
  }
  if (op == "popc" || op == "clz" || op == "brev" || op == "bfind") {
    i.flag = b.take("shiftamt");
    const Type type = b.take_type();
    b.result(b.operand(0));
    b.source(b.operand(1), type);
    return with_integer(type, [&](auto zero) {
      using V = decltype(zero);
      if (op == "bfind") i.run = unary<uint32_t, V, find_bit<V>>;
      if constexpr (std::is_unsigned_v<V>) {
        if (op == "popc") i.run = unary<uint32_t, V, count_ones<V>>;
        if (op == "clz") i.run = unary<uint32_t, V, count_leading<V>>;
        if (op == "brev") i.run = unary<V, V, reverse_bits<V>>;
      }
    });
  }
  if (op == "bmsk") {
    i.how.saturates = b.take("clamp");
    if (!i.how.saturates && !b.take("wrap")) return false;
    b.take_type();
    b.result(b.operand(0));
    take_sources(b, 1, Type::kB32);
    i.run = binary<uint32_t, uint32_t, bit_mask>;
    return true;
  }
  if (op == "szext") {
    i.how.saturates = b.take("clamp");
    if (!i.how.saturates && !b.take("wrap")) return false;
    const Type type = b.take_type();
    b.result(b.operand(0));
    take_sources(b, 1, type);
    i.run = type == Type::kS32 ? binary<int32_t, int32_t, extend<int32_t>>
                               : binary<uint32_t, uint32_t, extend<uint32_t>>;
    return true;
  }
  if (op == "fns") {
    const Type type = b.take_type();
    b.result(b.operand(0));
    take_sources(b, 1, type);
    i.run = ternary<uint32_t, uint32_t, find_nth>;
    return true;
  }
  if (op == "dp4a" || op == "dp2a") {
    if (op == "dp2a" && b.take("hi")) i.choice = 1;
    if (op == "dp2a") b.take("lo");
    i.flag = b.take_type() == Type::kS32;
    i.choice2 = b.take_type() == Type::kS32 ? 1 : 0;
    b.result(b.operand(0));
    take_sources(b, 1, Type::kB32);
    i.run = op == "dp4a" ? ternary<uint32_t, uint32_t, dot4> : ternary<uint32_t, uint32_t, dot2>;
    return true;
  }
  return false;
}

}  // namespace

bool select_bit(Builder& b) { return select_logic(b) || select_bits(b); }

}  // namespace ptx
