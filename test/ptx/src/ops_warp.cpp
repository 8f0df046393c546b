// What the lanes of a warp do together: shuffles, votes, reductions, matrices.

#include <algorithm>
#include <bit>
#include <cstring>

#include "access.h"
#include "build.h"
#include "lanes.h"

namespace ptx {
namespace {

using I = const Instruction&;

enum Shuffle : uint8_t { kIndex, kUp, kDown, kButterfly };

// shfl.sync: from[0] the value, from[1] the lane or distance, from[2] the clamp and the segments.
void shuffle(Warp& warp, I i, uint32_t mask) {
  const uint64_t* value = warp.row(i.from[0]);
  uint64_t before[kLanes];
  std::copy_n(value, kLanes, before);
  each_lane(mask, [&](int l) {
    const uint32_t by = static_cast<uint32_t>(warp.row(i.from[1])[l]) & 31;
    const uint32_t control = static_cast<uint32_t>(warp.row(i.from[2])[l]);
    const uint32_t clamp = control & 31;
    const uint32_t segment = control >> 8 & 31;
    const uint32_t lane = static_cast<uint32_t>(l);
    const uint32_t last = (lane & segment) | (clamp & ~segment);
    const uint32_t first = lane & segment;
    uint32_t from = lane;
    bool is_inside = false;
    switch (i.choice) {
      case kUp:
        from = lane - by;
        is_inside = static_cast<int32_t>(from) >= static_cast<int32_t>(last);
        break;
      case kDown:
        from = lane + by;
        is_inside = from <= last;
        break;
      case kButterfly:
        from = lane ^ by;
        is_inside = from <= last;
        break;
      default:
        from = first | (by & ~segment);
        is_inside = from <= last;
        break;
    }
    if (!is_inside) from = lane;
    if ((mask >> from & 1) == 0) {
      warp.grid().report("bad_shuffle",
                         "Lane " + std::to_string(lane) + " reads from lane " +
                             std::to_string(from) + ", which does not take part.",
                         warp, i, l);
    }
    warp.row(i.to[0])[l] = before[from];
    if (i.results > 1) warp.row(i.to[1])[l] = is_inside;
  });
}

enum Vote : uint8_t { kAll, kAny, kUniform, kBallot };

void vote(Warp& warp, I i, uint32_t mask) {
  const uint64_t* predicate = warp.row(i.from[0]);
  uint32_t yes = 0;
  each_lane(mask, [&](int l) {
    if ((predicate[l] != 0) != i.flag) yes |= 1u << l;
  });
  uint64_t result = yes;
  if (i.choice == kAll) result = yes == mask;
  if (i.choice == kAny) result = yes != 0;
  if (i.choice == kUniform) result = yes == mask || yes == 0;
  each_lane(mask, [&](int l) { warp.row(i.to[0])[l] = result; });
}

void active_mask(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) { warp.row(i.to[0])[l] = mask; });
}

// elect.sync d|p: the lowest lane.
void elect(Warp& warp, I i, uint32_t mask) {
  const int chosen = std::countr_zero(mask);
  each_lane(mask, [&](int l) {
    warp.row(i.to[0])[l] = static_cast<uint64_t>(chosen);
    warp.row(i.to[1])[l] = l == chosen;
  });
}

void match(Warp& warp, I i, uint32_t mask) {
  uint64_t value[kLanes];
  std::copy_n(warp.row(i.from[0]), kLanes, value);
  each_lane(mask, [&](int l) {
    uint32_t same = 0;
    each_lane(mask, [&](int other) {
      if (value[other] == value[l]) same |= 1u << other;
    });
    if (i.flag) {  // .all
      warp.row(i.to[0])[l] = same == mask ? mask : 0;
      if (i.results > 1) warp.row(i.to[1])[l] = same == mask;
    } else {
      warp.row(i.to[0])[l] = same;
    }
  });
}

enum Reduction : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };

template <typename V>
void reduce(Warp& warp, I i, uint32_t mask) {
  const uint64_t* value = warp.row(i.from[0]);
  bool is_first = true;
  V result = 0;
  each_lane(mask, [&](int l) {
    const V v = get<V>(value[l]);
    if (is_first) {
      result = v;
      is_first = false;
      return;
    }
    switch (i.choice) {
      case kMin:
        result = std::min(result, v);
        break;
      case kMax:
        result = std::max(result, v);
        break;
      case kAnd:
        result = static_cast<V>(result & v);
        break;
      case kOr:
        result = static_cast<V>(result | v);
        break;
      case kXor:
        result = static_cast<V>(result ^ v);
        break;
      default:
        result = static_cast<V>(static_cast<uint32_t>(result) + static_cast<uint32_t>(v));
        break;
    }
  });
  each_lane(mask, [&](int l) { warp.row(i.to[0])[l] = put<V>(result); });
}

// Rows of 8 x 8 matrices of 16 bits: lane 8 j + r gives the address of row r of matrix j. With
// .trans (`flag`) a lane gets two rows of one column instead of two columns of one row.
constexpr uint32_t kRowBytes = 16;

void load_matrices(Warp& warp, I i, uint32_t mask) {
  const uint64_t* base = warp.row(i.from[0]);
  WarpAccess access(warp, i);
  uint16_t matrices[4][8][8] = {};
  each_lane(mask, [&](int l) {
    if (l >= 8 * i.elements) return;
    const Place place =
        access.locate(l, base[l] + static_cast<uint64_t>(i.offset), kRowBytes, i.space);
    std::byte row[kRowBytes] = {};
    if (place.region != nullptr) access.read(l, place, row, kRowBytes);
    std::memcpy(matrices[l / 8][l % 8], row, kRowBytes);
  });
  each_lane(mask, [&](int l) {
    for (uint32_t j = 0; j < i.elements; ++j) {
      const int r = l / 4;
      const int c = 2 * (l % 4);
      const uint32_t low = i.flag ? matrices[j][c][r] : matrices[j][r][c];
      const uint32_t high = i.flag ? matrices[j][c + 1][r] : matrices[j][r][c + 1];
      warp.row(i.to[j])[l] = high << 16 | low;
    }
  });
}

void store_matrices(Warp& warp, I i, uint32_t mask) {
  const uint64_t* base = warp.row(i.from[0]);
  WarpAccess access(warp, i);
  uint16_t matrices[4][8][8] = {};
  each_lane(mask, [&](int l) {
    for (uint32_t j = 0; j < i.elements; ++j) {
      const uint64_t word = warp.row(i.from[1 + j])[l];
      const int r = l / 4;
      const int c = 2 * (l % 4);
      (i.flag ? matrices[j][c][r] : matrices[j][r][c]) = static_cast<uint16_t>(word);
      (i.flag ? matrices[j][c + 1][r] : matrices[j][r][c + 1]) = static_cast<uint16_t>(word >> 16);
    }
  });
  each_lane(mask, [&](int l) {
    if (l >= 8 * i.elements) return;
    const Place place =
        access.locate(l, base[l] + static_cast<uint64_t>(i.offset), kRowBytes, i.space);
    std::byte row[kRowBytes];
    std::memcpy(row, matrices[l / 8][l % 8], kRowBytes);
    if (place.region != nullptr) access.write(l, place, row, kRowBytes);
  });
}

void multiply_matrices(Warp& warp, I i, uint32_t mask) {
  (void)mask;
  Fragment a;
  Fragment b;
  Fragment c;
  Fragment d;
  int next = 0;
  const auto read = [&](Fragment& fragment, int registers) {
    for (int r = 0; r < registers; ++r, ++next) {
      const uint64_t* row = warp.row(i.from[next]);
      for (int l = 0; l < kLanes; ++l) fragment[r][l] = static_cast<uint32_t>(row[l]);
    }
  };
  read(a, registers_of_a(i.mma));
  read(b, registers_of_b(i.mma));
  read(c, registers_of_c(i.mma));
  multiply(i.mma, warp.grid().options().generation, a, b, c, d);
  for (int r = 0; r < registers_of_d(i.mma); ++r) {
    uint64_t* row = warp.row(i.to[r]);
    for (int l = 0; l < kLanes; ++l) row[l] = d[r][l];
  }
}

// Lanes that an instruction names have to run it together.
void take_members(Builder& b, size_t operand) {
  Instruction& i = b.instruction();
  i.members = b.row_of(b.operand(operand), Type::kB32);
}

void take_results(Builder& b, const Operand& operand) {
  if (operand.kind != OperandKind::kPair) return b.result(operand);
  for (const Operand& element : operand.elements) b.result(element);
}

bool select_shuffle(Builder& b) {
  Instruction& i = b.instruction();
  if (b.statement().opcode != "shfl" || !b.take("sync")) return false;
  constexpr std::pair<std::string_view, Shuffle> kNames[] = {
      {"idx", kIndex}, {"up", kUp}, {"down", kDown}, {"bfly", kButterfly}};
  for (const auto& [name, choice] : kNames) {
    if (b.take(name)) i.choice = choice;
  }
  if (!b.take("b32")) return false;
  take_results(b, b.operand(0));
  for (size_t n = 1; n < 4; ++n) b.source(b.operand(n), Type::kB32);
  take_members(b, 4);
  i.run = shuffle;
  return true;
}

bool select_vote(Builder& b) {
  Instruction& i = b.instruction();
  if (b.statement().opcode != "vote" || !b.take("sync")) return false;
  constexpr std::pair<std::string_view, Vote> kNames[] = {
      {"all", kAll}, {"any", kAny}, {"uni", kUniform}, {"ballot", kBallot}};
  for (const auto& [name, choice] : kNames) {
    if (b.take(name)) i.choice = choice;
  }
  b.take_type();
  b.result(b.operand(0));
  Operand predicate = b.operand(1);
  i.flag = predicate.negated;
  predicate.negated = false;
  b.source(predicate, Type::kPred);
  take_members(b, 2);
  i.run = vote;
  return true;
}

bool select_small(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  if (op == "activemask") {
    b.take_type();
    b.result(b.operand(0));
    i.run = active_mask;
    return true;
  }
  if (op == "elect" && b.take("sync")) {
    take_results(b, b.operand(0));
    take_members(b, 1);
    i.run = elect;
    return true;
  }
  if (op == "match" && b.take("sync")) {
    i.flag = b.take("all");
    if (!i.flag && !b.take("any")) return false;
    const Type type = b.take_type();
    take_results(b, b.operand(0));
    b.source(b.operand(1), type);
    take_members(b, 2);
    i.run = match;
    return true;
  }
  if (op == "redux" && b.take("sync")) {
    constexpr std::pair<std::string_view, Reduction> kNames[] = {
        {"add", kAdd}, {"min", kMin}, {"max", kMax}, {"and", kAnd}, {"or", kOr}, {"xor", kXor}};
    for (const auto& [name, choice] : kNames) {
      if (b.take(name)) i.choice = choice;
    }
    const Type type = b.take_type();
    if (type != Type::kU32 && type != Type::kS32 && type != Type::kB32) return false;
    b.result(b.operand(0));
    b.source(b.operand(1), type);
    take_members(b, 2);
    i.run = type == Type::kS32 ? reduce<int32_t> : reduce<uint32_t>;
    return true;
  }
  return false;
}

bool select_matrices(Builder& b) {
  Instruction& i = b.instruction();
  const bool loads = b.statement().opcode == "ldmatrix";
  if (!loads && b.statement().opcode != "stmatrix") return false;
  if (!b.take("sync") || !b.take("aligned") || !b.take("m8n8")) return false;
  i.is_aligned = true;
  i.access.access = loads ? Access::kRead : Access::kWrite;
  i.elements = b.take("x4") ? 4 : b.take("x2") ? 2 : b.take("x1") ? 1 : 0;
  if (i.elements == 0) return false;
  i.flag = b.take("trans");
  i.space = b.take_space().value_or(Space::kGeneric);
  if (!b.take("b16")) return false;
  b.address(b.operand(loads ? 1 : 0));
  if (loads) {
    b.results(b.operand(0));
  } else {
    b.sources(b.operand(1), Type::kB32);
  }
  i.run = loads ? load_matrices : store_matrices;
  return true;
}

std::optional<Element> take_element(Builder& b) {
  constexpr std::pair<std::string_view, Element> kNames[] = {
      {"f16", Element::kF16}, {"bf16", Element::kBf16}, {"tf32", Element::kTf32},
      {"f32", Element::kF32}, {"s8", Element::kS8},     {"u8", Element::kU8},
      {"s4", Element::kS4},   {"u4", Element::kU4},     {"s32", Element::kS32}};
  const std::optional<std::string> first = b.take_prefix("");
  for (const auto& [name, element] : kNames) {
    if (first == name) return element;
  }
  return std::nullopt;
}

bool select_mma(Builder& b) {
  Instruction& i = b.instruction();
  if (b.statement().opcode != "mma") return false;
  if (!b.take("sync") || !b.take("aligned") || !b.take("row") || !b.take("col")) return false;
  i.is_aligned = true;
  const std::optional<std::string> shape = b.take_prefix("m");
  if (!shape || std::sscanf(shape->c_str(), "m%dn%dk%d", &i.mma.m, &i.mma.n, &i.mma.k) != 3) {
    b.refuse("expected a shape among the modifiers");
  }
  i.mma.saturates = b.take("satfinite");
  std::array<Element, 4> elements{};
  for (Element& element : elements) {
    const std::optional<Element> taken = take_element(b);
    if (!taken) b.refuse("expected four types among the modifiers");
    element = *taken;
  }
  i.mma.d = elements[0];
  i.mma.a = elements[1];
  i.mma.b = elements[2];
  i.mma.c = elements[3];
  if (!is_known(i.mma)) b.refuse("that shape with those types is not known");
  b.results(b.operand(0));
  for (size_t n = 1; n < 4; ++n) b.sources(b.operand(n), Type::kB32);
  if (i.results != registers_of_d(i.mma) ||
      i.sources != registers_of_a(i.mma) + registers_of_b(i.mma) + registers_of_c(i.mma)) {
    b.refuse("has another number of registers than its shape");
  }
  i.run = multiply_matrices;
  return true;
}

}  // namespace

bool select_warp(Builder& b) {
  return select_shuffle(b) || select_vote(b) || select_small(b) || select_matrices(b) ||
         select_mma(b);
}

}  // namespace ptx
