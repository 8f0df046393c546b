// Comparisons, and choices by their results.

#include <cmath>

#include "integers.h"

namespace ptx {
namespace {

enum Compare : uint8_t {
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kEqu,
  kNeu,
  kLtu,
  kLeu,
  kGtu,
  kGeu,
  kNum,
  kNan
};

template <typename V>
bool compare(V a, V b, uint8_t how) {
  const bool is_unordered = a != a || b != b;
  switch (how) {
    case kEq:
      return a == b;
    case kNe:
      return !is_unordered && a != b;
    case kLt:
      return a < b;
    case kLe:
      return a <= b;
    case kGt:
      return a > b;
    case kGe:
      return a >= b;
    case kEqu:
      return is_unordered || a == b;
    case kNeu:
      return a != b;
    case kLtu:
      return is_unordered || a < b;
    case kLeu:
      return is_unordered || a <= b;
    case kGtu:
      return is_unordered || a > b;
    case kGeu:
      return is_unordered || a >= b;
    case kNum:
      return !is_unordered;
    default:
      return is_unordered;
  }
}

enum Combine : uint8_t { kAlone, kAnd, kOr, kXor };
bool combine(bool comparison, bool other, uint8_t how) {
  switch (how) {
    case kAnd:
      return comparison && other;
    case kOr:
      return comparison || other;
    case kXor:
      return comparison != other;
    default:
      return comparison;
  }
}

struct F16 {};
struct Bf16 {};

// What is compared; .ftz makes zeros of subnormal numbers of 32 and of 16 bits.
template <typename V>
auto comparand(uint64_t bits, I i) {
  if constexpr (std::is_same_v<V, F16>) {
    const float value = widen(Half::kF16, static_cast<uint16_t>(bits));
    return i.how.flushes && std::fabs(value) < 0x1p-14f ? 0.0f : value;
  } else if constexpr (std::is_same_v<V, Bf16>) {
    return widen(Half::kBf16, static_cast<uint16_t>(bits));
  } else if constexpr (std::is_same_v<V, float>) {
    const float value = get<float>(bits);
    return i.how.flushes && std::fpclassify(value) == FP_SUBNORMAL ? 0.0f : value;
  } else {
    return get<V>(bits);
  }
}
template <typename V>
bool compare_bits(uint64_t a, uint64_t b, I i) {
  return compare(comparand<V>(a, i), comparand<V>(b, i), i.choice);
}

// setp p|q, a, b, {!}c: `choice` compares, `choice2` combines with c, `flag` negates c.
template <typename V>
void set_predicate(Warp& warp, I i, uint32_t mask) {
  const uint64_t* a = warp.row(i.from[0]);
  const uint64_t* b = warp.row(i.from[1]);
  const uint64_t* c = i.sources > 2 ? warp.row(i.from[2]) : nullptr;
  uint64_t* p = warp.row(i.to[0]);
  uint64_t* q = i.results > 1 ? warp.row(i.to[1]) : nullptr;
  each_lane(mask, [&](int l) {
    const bool is_so = compare_bits<V>(a[l], b[l], i);
    const bool other = c != nullptr && (c[l] != 0) != i.flag;
    if (q != nullptr) q[l] = combine(!is_so, other, i.choice2);
    p[l] = combine(is_so, other, i.choice2);
  });
}
// Two halves, each with a predicate of its own.
template <typename V>
void set_predicates_of_pairs(Warp& warp, I i, uint32_t mask) {
  const uint64_t* a = warp.row(i.from[0]);
  const uint64_t* b = warp.row(i.from[1]);
  each_lane(mask, [&](int l) {
    const uint64_t x = a[l];
    const uint64_t y = b[l];
    const bool other = i.sources > 2 && (warp.row(i.from[2])[l] != 0) != i.flag;
    warp.row(i.to[0])[l] = combine(compare_bits<V>(x, y, i), other, i.choice2);
    if (i.results > 1) {
      warp.row(i.to[1])[l] = combine(compare_bits<V>(x >> 16, y >> 16, i), other, i.choice2);
    }
  });
}
// set.cmp.dtype: `table` is what stands for true.
template <typename V>
void set_value(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    const bool is_so = compare_bits<V>(warp.row(i.from[0])[l], warp.row(i.from[1])[l], i);
    const bool other = i.sources > 2 && (warp.row(i.from[2])[l] != 0) != i.flag;
    warp.row(i.to[0])[l] = combine(is_so, other, i.choice2) ? i.table : 0;
  });
}
template <typename V>
void set_pair_of_values(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    const uint64_t x = warp.row(i.from[0])[l];
    const uint64_t y = warp.row(i.from[1])[l];
    const bool other = i.sources > 2 && (warp.row(i.from[2])[l] != 0) != i.flag;
    const bool low = combine(compare_bits<V>(x, y, i), other, i.choice2);
    const bool high = combine(compare_bits<V>(x >> 16, y >> 16, i), other, i.choice2);
    warp.row(i.to[0])[l] = (low ? i.table & 0xFFFF : 0) | (high ? i.table & 0xFFFF0000 : 0);
  });
}
// What stands for true among the results of set.
uint32_t truth_of(Type type) {
  switch (type) {
    case Type::kF32:
      return 0x3F800000;
    case Type::kF16:
      return 0x3C00;
    case Type::kBf16:
      return 0x3F80;
    case Type::kF16x2:
      return 0x3C003C00;
    case Type::kBf16x2:
      return 0x3F803F80;
    default:
      return size_of(type) == 2 ? 0xFFFF : 0xFFFFFFFF;
  }
}

void select_value(Warp& warp, I i, uint32_t mask) {
  const uint64_t* a = warp.row(i.from[0]);
  const uint64_t* b = warp.row(i.from[1]);
  const uint64_t* c = warp.row(i.from[2]);
  uint64_t* to = warp.row(i.to[0]);
  each_lane(mask, [&](int l) { to[l] = (c[l] != 0) != i.flag ? a[l] : b[l]; });
}
void select_by_sign(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    const bool is_first = i.flag ? comparand<float>(warp.row(i.from[2])[l], i) >= 0
                                 : get<int32_t>(warp.row(i.from[2])[l]) >= 0;
    warp.row(i.to[0])[l] = warp.row(i.from[is_first ? 0 : 1])[l];
  });
}

uint8_t take_comparison(Builder& b) {
  constexpr std::pair<std::string_view, Compare> kNames[] = {
      {"eq", kEq},   {"ne", kNe},   {"lt", kLt},   {"le", kLe},   {"gt", kGt},   {"ge", kGe},
      {"lo", kLt},   {"ls", kLe},   {"hi", kGt},   {"hs", kGe},   {"equ", kEqu}, {"neu", kNeu},
      {"ltu", kLtu}, {"leu", kLeu}, {"gtu", kGtu}, {"geu", kGeu}, {"num", kNum}, {"nan", kNan},
  };
  for (const auto& [name, comparison] : kNames) {
    if (b.take(name)) return comparison;
  }
  b.refuse("expected a comparison among the modifiers");
}

bool select_comparison(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  if (op != "setp" && op != "set") return false;
  i.choice = take_comparison(b);
  i.how.flushes = b.take("ftz");
  if (b.take("and")) i.choice2 = kAnd;
  if (b.take("or")) i.choice2 = kOr;
  if (b.take("xor")) i.choice2 = kXor;
  if (op == "set") i.table = truth_of(b.take_type());
  const Type type = b.take_type();
  const Operand& to = b.operand(0);
  if (to.kind == OperandKind::kPair) {
    for (const Operand& element : to.elements) b.result(element);
  } else {
    b.result(to);
  }
  b.source(b.operand(1), type);
  b.source(b.operand(2), type);
  if (b.operand_count() > 3) {
    Operand other = b.operand(3);
    i.flag = other.negated;
    other.negated = false;
    b.source(other, Type::kPred);
  }
  const auto use = [&](auto zero) {
    using V = decltype(zero);
    i.run = op == "setp" ? set_predicate<V> : set_value<V>;
  };
  switch (type) {
    case Type::kF32:
      use(float{});
      return true;
    case Type::kF64:
      use(double{});
      return true;
    case Type::kF16:
      use(F16{});
      return true;
    case Type::kBf16:
      use(Bf16{});
      return true;
    case Type::kF16x2:
      i.run = op == "setp" ? set_predicates_of_pairs<F16> : set_pair_of_values<F16>;
      return true;
    case Type::kBf16x2:
      i.run = op == "setp" ? set_predicates_of_pairs<Bf16> : set_pair_of_values<Bf16>;
      return true;
    default:
      return with_integer(type, use);
  }
}

bool select_choice(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  if (op == "selp") {
    const Type type = b.take_type();
    b.result(b.operand(0));
    b.source(b.operand(1), type);
    b.source(b.operand(2), type);
    Operand predicate = b.operand(3);
    i.flag = predicate.negated;
    predicate.negated = false;
    b.source(predicate, Type::kPred);
    i.run = select_value;
    return true;
  }
  if (op == "slct") {
    i.how.flushes = b.take("ftz");
    const Type type = b.take_type();
    i.flag = b.take_type() == Type::kF32;
    b.result(b.operand(0));
    b.source(b.operand(1), type);
    b.source(b.operand(2), type);
    b.source(b.operand(3), Type::kB32);
    i.run = select_by_sign;
    return true;
  }
  return false;
}

}  // namespace

bool select_compare(Builder& b) { return select_comparison(b) || select_choice(b); }

}  // namespace ptx
