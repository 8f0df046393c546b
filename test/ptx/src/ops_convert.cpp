// mov, with its packing of vectors, and conversions between types and spaces.

#include <algorithm>
#include <cmath>

#include "build.h"
#include "lanes.h"
#include "rounding.h"

namespace ptx {
namespace {

using I = const Instruction&;

void copy_row(Warp& warp, I i, uint32_t mask) {
  const uint64_t* from = warp.row(i.from[0]);
  uint64_t* to = warp.row(i.to[0]);
  each_lane(mask, [&](int l) { to[l] = from[l]; });
}

uint64_t low_bits(int bits) { return bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1; }

// mov.b32 %r, {%h0, %h1}: `bytes` is the size of a part.
void pack(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    uint64_t whole = 0;
    for (int n = 0; n < i.sources; ++n) {
      whole |= (warp.row(i.from[n])[l] & low_bits(8 * i.bytes)) << (8 * i.bytes * n);
    }
    warp.row(i.to[0])[l] = whole;
  });
}
void unpack(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    const uint64_t whole = warp.row(i.from[0])[l];
    for (int n = 0; n < i.results; ++n) {
      warp.row(i.to[n])[l] = whole >> (8 * i.bytes * n) & low_bits(8 * i.bytes);
    }
  });
}

void read_clock(Warp& warp, I i, uint32_t mask) {
  each_lane(mask,
            [&](int l) { warp.row(i.to[0])[l] = warp.grid().clock() & low_bits(8 * i.bytes); });
}

bool select_move(Builder& b) {
  Instruction& i = b.instruction();
  if (b.statement().opcode != "mov") return false;
  const Type type = b.take_type();
  const Operand& to = b.operand(0);
  const Operand& from = b.operand(1);
  const int bytes = size_of(type);
  if (from.kind == OperandKind::kVector) {
    b.result(to);
    b.sources(from, Type::kB64);
    i.bytes = static_cast<uint8_t>(bytes / i.sources);
    i.run = pack;
    return true;
  }
  if (to.kind == OperandKind::kVector) {
    b.results(to);
    b.source(from, type);
    i.bytes = static_cast<uint8_t>(bytes / i.results);
    i.run = unpack;
    return true;
  }
  b.result(to);
  if (from.kind == OperandKind::kSpecial &&
      (from.name.starts_with("%clock") || from.name.starts_with("%globaltimer"))) {
    i.bytes = static_cast<uint8_t>(bytes);
    i.run = read_clock;
    return true;
  }
  b.source(from, type);
  i.run = copy_row;
  return true;
}

// cvta: `offset` is added on the way to generic addresses, taken on the way back.
void to_generic(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    warp.row(i.to[0])[l] = warp.row(i.from[0])[l] + static_cast<uint64_t>(i.offset);
  });
}

uint64_t window_of(Space space) {
  if (space == Space::kShared) return kSharedWindow;
  if (space == Space::kLocal) return kLocalWindow;
  return 0;
}

void is_in_space(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    const uint64_t address = warp.row(i.from[0])[l];
    const auto is_in = [address](uint64_t window) {
      return address >= window && address - window < kWindowBytes;
    };
    const bool is_shared = is_in(kSharedWindow);
    const bool is_local = is_in(kLocalWindow);
    bool result = !is_shared && !is_local;
    if (i.space == Space::kShared) result = is_shared;
    if (i.space == Space::kLocal) result = is_local;
    if (i.space == Space::kConst || i.space == Space::kParam) result = false;
    warp.row(i.to[0])[l] = result;
  });
}

bool select_address(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  if (op == "isspacep") {
    const std::optional<Space> space = b.take_space();
    if (!space) return false;
    i.space = *space;
    b.result(b.operand(0));
    b.source(b.operand(1), Type::kB64);
    i.run = is_in_space;
    return true;
  }
  if (op != "cvta") return false;
  const bool back = b.take("to");
  const std::optional<Space> space = b.take_space();
  if (!space) return false;
  const Type type = b.take_type();
  if (type != Type::kU64 && type != Type::kS64) b.refuse("addresses have 64 bits here");
  const int64_t window = static_cast<int64_t>(window_of(*space));
  i.offset = back ? -window : window;
  b.result(b.operand(0));
  b.source(b.operand(1), Type::kB64);
  i.run = to_generic;
  return true;
}

// A number on its way from one type to another. Integers pass as 64 bits, floats as double, which
// holds every value of the smaller formats.
struct Number {
  bool is_float;
  bool is_signed;
  double real;
  int64_t integer;
};

bool is_signed(Type type) {
  return type == Type::kS8 || type == Type::kS16 || type == Type::kS32 || type == Type::kS64;
}

double flushed(double value, bool flushes) {
  if (flushes && std::fabs(value) < 0x1p-126) return std::copysign(0.0, value);
  return value;
}

Number read_number(uint64_t bits, Type type, bool flushes) {
  switch (type) {
    case Type::kF16:
      return {true, true, widen(Half::kF16, static_cast<uint16_t>(bits)), 0};
    case Type::kBf16:
      return {true, true, widen(Half::kBf16, static_cast<uint16_t>(bits)), 0};
    case Type::kF32:
      return {true, true, flushed(get<float>(bits), flushes), 0};
    case Type::kF64:
      return {true, true, get<double>(bits), 0};
    default:
      break;
  }
  const int width = 8 * size_of(type);
  if (is_signed(type)) {
    const int shift = 64 - width;
    return {false, true, 0, static_cast<int64_t>(bits << shift) >> shift};
  }
  return {false, false, 0, static_cast<int64_t>(bits & low_bits(width))};
}

// .sat of floats: to [0, 1], and NaN becomes 0.
double saturated(double value) { return value > 0 ? std::fmin(value, 1.0) : 0.0; }

uint64_t write_number(const Number& from, Type type, const Instruction& i) {
  const Arithmetic& how = i.how;
  switch (type) {
    case Type::kF32: {
      float value = from.is_float ? float_from_double(from.real, how.round, how.flushes)
                                  : float_from_integer(from.integer, from.is_signed, how.round);
      if (from.is_float && i.flag) {  // rounded to an integer
        value = static_cast<float>(to_integral(from.real, how.round));
      }
      if (how.saturates) value = static_cast<float>(saturated(double{value}));
      return put<float>(std::isnan(value) ? get<float>(0x7FFFFFFF) : value);
    }
    case Type::kF64: {
      double value = from.real;
      if (!from.is_float) value = double_from_integer(from.integer, from.is_signed, how.round);
      if (from.is_float && i.flag) value = to_integral(value, how.round);
      return put<double>(how.saturates ? saturated(value) : value);
    }
    case Type::kF16:
    case Type::kBf16: {
      const Half format = type == Type::kF16 ? Half::kF16 : Half::kBf16;
      if (!from.is_float) {
        return half_from_integer(format, from.integer, from.is_signed, how.round);
      }
      const double value = i.flag ? to_integral(from.real, how.round) : from.real;
      // Of a double in one step: by way of a float it would be rounded twice.
      if (static_cast<Type>(i.choice2) == Type::kF64) return encode(format_of(format), value, how);
      return narrow(format, static_cast<float>(value), how);
    }
    default:
      break;
  }
  const int width = 8 * size_of(type);
  if (from.is_float) {
    const bool is_wide = static_cast<Type>(i.choice2) == Type::kF64 || width == 64;
    if (std::isnan(from.real)) return is_wide ? uint64_t{1} << (width - 1) : 0;
    return static_cast<uint64_t>(to_integer(from.real, width, is_signed(type), how.round)) &
           low_bits(width);
  }
  if (how.saturates) {
    // Between integers .sat clamps to the range of the result.
    const __int128 value = from.is_signed
                               ? static_cast<__int128>(from.integer)
                               : static_cast<__int128>(static_cast<uint64_t>(from.integer));
    const __int128 least = is_signed(type) ? -(static_cast<__int128>(1) << (width - 1)) : 0;
    const __int128 most = (static_cast<__int128>(1) << (is_signed(type) ? width - 1 : width)) - 1;
    return static_cast<uint64_t>(value < least  ? least
                                 : value > most ? most
                                                : value) &
           low_bits(width);
  }
  return static_cast<uint64_t>(from.integer) & low_bits(width);
}

void convert(Warp& warp, I i, uint32_t mask) {
  const Type to = static_cast<Type>(i.choice);
  const Type from = static_cast<Type>(i.choice2);
  const int width = 8 * size_of(to);
  each_lane(mask, [&](int l) {
    uint64_t bits = write_number(read_number(warp.row(i.from[0])[l], from, i.how.flushes), to, i);
    // A signed result fills the whole register.
    if (is_signed(to)) {
      const int shift = 64 - width;
      bits = static_cast<uint64_t>(static_cast<int64_t>(bits << shift) >> shift) &
             low_bits(8 * i.bytes);
    }
    warp.row(i.to[0])[l] = bits;
  });
}

// cvt.rn.f16x2.f32 d, a, b: a becomes the upper half.
void convert_pair(Warp& warp, I i, uint32_t mask) {
  const Half format = static_cast<Type>(i.choice) == Type::kF16x2 ? Half::kF16 : Half::kBf16;
  each_lane(mask, [&](int l) {
    const uint32_t high = narrow(format, get<float>(warp.row(i.from[0])[l]), i.how);
    const uint32_t low = narrow(format, get<float>(warp.row(i.from[1])[l]), i.how);
    warp.row(i.to[0])[l] = high << 16 | low;
  });
}

void convert_tf32(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    const float value = get<float>(warp.row(i.from[0])[l]);
    const bool is_negative = i.how.relu && value <= 0;
    warp.row(i.to[0])[l] = put<float>(is_negative ? 0.0f : tf32_from_float(value, i.how.round));
  });
}

// Pairs of 8-bit floats. `choice` is the format.
void convert_to_bytes(Warp& warp, I i, uint32_t mask) {
  const Byte format = static_cast<Byte>(i.choice);
  each_lane(mask, [&](int l) {
    const uint64_t first = warp.row(i.from[0])[l];
    float high = 0;
    float low = 0;
    if (i.sources == 2) {
      high = get<float>(first);
      low = get<float>(warp.row(i.from[1])[l]);
    } else {
      high = widen(Half::kF16, static_cast<uint16_t>(first >> 16));
      low = widen(Half::kF16, static_cast<uint16_t>(first));
    }
    warp.row(i.to[0])[l] = static_cast<uint64_t>(narrow(format, high, i.how.relu)) << 8 |
                           narrow(format, low, i.how.relu);
  });
}
void convert_from_bytes(Warp& warp, I i, uint32_t mask) {
  const Byte format = static_cast<Byte>(i.choice);
  each_lane(mask, [&](int l) {
    const uint64_t bytes = warp.row(i.from[0])[l];
    const auto half = [&](uint64_t byte) {
      return uint32_t{narrow(Half::kF16, widen(format, static_cast<uint8_t>(byte)), i.how)};
    };
    warp.row(i.to[0])[l] = half(bytes >> 8) << 16 | half(bytes);
  });
}

// cvt.pack.sat.u8.s32.b32 d, a, b, c: `choice` is the type of the parts, `bytes` their size.
void convert_pack(Warp& warp, I i, uint32_t mask) {
  const Type type = static_cast<Type>(i.choice);
  const uint32_t bits = 8u * i.bytes;
  each_lane(mask, [&](int l) {
    const auto part = [&](int n) {
      const int64_t value = static_cast<int32_t>(warp.row(i.from[n])[l]);
      const int64_t least = is_signed(type) ? -(int64_t{1} << (bits - 1)) : 0;
      const int64_t most = (int64_t{1} << (is_signed(type) ? bits - 1 : bits)) - 1;
      return static_cast<uint32_t>(std::clamp(value, least, most)) &
             low_bits(static_cast<int>(bits));
    };
    const uint64_t rest = i.sources > 2 ? warp.row(i.from[2])[l] : 0;
    warp.row(i.to[0])[l] =
        static_cast<uint32_t>(rest << (2 * bits) | uint64_t{part(0)} << bits | part(1));
  });
}

bool select_pack(Builder& b) {
  Instruction& i = b.instruction();
  const Type to = b.take_type();
  if (b.take_type() != Type::kS32) b.refuse("expected signed integers of 32 bits");
  if (size_of(to) > 2) b.refuse("expected parts of 8 or 16 bits");
  b.take("b32");
  i.choice = static_cast<uint8_t>(to);
  i.bytes = static_cast<uint8_t>(size_of(to));
  b.result(b.operand(0));
  for (size_t n = 1; n < b.operand_count(); ++n) b.source(b.operand(n), Type::kB32);
  i.run = convert_pack;
  return true;
}

bool select_bytes(Builder& b) {
  Instruction& i = b.instruction();
  const bool is_e4m3 = b.take("e4m3x2");
  if (!is_e4m3 && !b.take("e5m2x2")) return false;
  i.choice = static_cast<uint8_t>(is_e4m3 ? Byte::kE4m3 : Byte::kE5m2);
  b.take("satfinite");
  b.result(b.operand(0));
  for (size_t n = 1; n < b.operand_count(); ++n) b.source(b.operand(n), Type::kB32);
  // cvt.to.from: the bytes are the result if the type comes last.
  const bool from_bytes = b.statement().modifiers.back().starts_with("e");
  b.take_type();
  i.run = from_bytes ? convert_from_bytes : convert_to_bytes;
  return true;
}

bool select_cvt(Builder& b) {
  Instruction& i = b.instruction();
  if (b.statement().opcode != "cvt") return false;
  i.how.relu = b.take("relu");
  i.how.flushes = b.take("ftz");
  i.how.saturates = b.take("sat");
  const std::optional<Round> round = b.take_round();
  i.how.round = round.value_or(Round::kNearest);
  if (b.take("rni")) i.flag = true;
  if (b.take("rzi")) i.flag = true, i.how.round = Round::kZero;
  if (b.take("rmi")) i.flag = true, i.how.round = Round::kDown;
  if (b.take("rpi")) i.flag = true, i.how.round = Round::kUp;
  const bool is_away = b.take("rna");
  if (b.take("pack")) return select_pack(b);
  if (b.take("tf32")) {
    b.take_type();
    if (is_away) i.how.round = Round::kUp;
    b.result(b.operand(0));
    b.source(b.operand(1), Type::kB32);
    i.run = convert_tf32;
    return true;
  }
  if (select_bytes(b)) return true;
  const Type to = b.take_type();
  const Type from = b.take_type();
  i.choice = static_cast<uint8_t>(to);
  i.choice2 = static_cast<uint8_t>(from);
  i.bytes = static_cast<uint8_t>(b.width_of(b.operand(0)));
  b.result(b.operand(0));
  for (size_t n = 1; n < b.operand_count(); ++n) b.source(b.operand(n), from);
  if (to == Type::kF16x2 || to == Type::kBf16x2) {
    if (i.sources != 2 || from != Type::kF32) b.refuse("expected two numbers of 32 bits");
    i.run = convert_pair;
    return true;
  }
  i.run = convert;
  return true;
}

}  // namespace

bool select_convert(Builder& b) { return select_move(b) || select_address(b) || select_cvt(b); }

}  // namespace ptx
