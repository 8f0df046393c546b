// Arithmetic of integers, with carries too.

#include <algorithm>
#include <limits>

#include "integers.h"

namespace ptx {
namespace {

template <typename V>
V saturated(__int128 value) {
  return static_cast<V>(
      std::clamp<__int128>(value, std::numeric_limits<V>::min(), std::numeric_limits<V>::max()));
}

template <typename V>
V add(V a, V b, I i) {
  if (i.how.saturates) return saturated<V>(static_cast<__int128>(a) + b);
  return static_cast<V>(Unsigned<V>(a) + Unsigned<V>(b));
}
template <typename V>
V subtract(V a, V b, I i) {
  if (i.how.saturates) return saturated<V>(static_cast<__int128>(a) - b);
  return static_cast<V>(Unsigned<V>(a) - Unsigned<V>(b));
}
template <typename V>
V multiply_low(V a, V b, I) {
  return static_cast<V>(wide_product(a, b));
}
template <typename V>
V multiply_high(V a, V b, I) {
  return static_cast<V>(wide_product(a, b) >> kBits<V>);
}
template <typename V>
V multiply_add_low(V a, V b, V c, I) {
  return static_cast<V>(Unsigned<V>(static_cast<V>(wide_product(a, b))) + Unsigned<V>(c));
}
template <typename V>
V multiply_add_high(V a, V b, V c, I i) {
  return add(static_cast<V>(wide_product(a, b) >> kBits<V>), c, i);
}
// mul24: the low 32 bits, or the high ones, of a product of 48.
template <typename V>
V multiply24(V a, V b, I i) {
  const auto low24 = [](V value) { return static_cast<V>(Unsigned<V>(value) << 8) >> 8; };
  const int64_t product = static_cast<int64_t>(low24(a)) * low24(b);
  return static_cast<V>(product >> (i.flag ? 16 : 0));
}
template <typename V>
V multiply_add24(V a, V b, V c, I i) {
  return add(multiply24(a, b, i), c, i);
}
template <typename V>
V divide(V a, V b, I) {
  // Left open by PTX; hardware gives all ones.
  if (b == 0) return static_cast<V>(~V{0});
  if constexpr (std::is_signed_v<V>) {
    if (b == V{-1}) return static_cast<V>(Unsigned<V>(0) - Unsigned<V>(a));
  }
  return static_cast<V>(a / b);
}
template <typename V>
V remainder(V a, V b, I) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<V>) {
    if (b == V{-1}) return 0;
  }
  return static_cast<V>(a % b);
}
template <typename V>
V minimum(V a, V b, I i) {
  const V least = std::min(a, b);
  if constexpr (std::is_signed_v<V>) {
    if (i.how.relu) return std::max<V>(least, 0);
  }
  return least;
}
template <typename V>
V maximum(V a, V b, I i) {
  const V most = std::max(a, b);
  if constexpr (std::is_signed_v<V>) {
    if (i.how.relu) return std::max<V>(most, 0);
  }
  return most;
}
template <typename V>
V negate(V a, I) {
  return static_cast<V>(Unsigned<V>(0) - Unsigned<V>(a));
}
template <typename V>
V absolute(V a, I) {
  return a < 0 ? static_cast<V>(Unsigned<V>(0) - Unsigned<V>(a)) : a;
}
template <typename V>
V difference(V a, V b, V c, I) {
  const Unsigned<V> distance = a > b ? static_cast<Unsigned<V>>(Unsigned<V>(a) - Unsigned<V>(b))
                                     : static_cast<Unsigned<V>>(Unsigned<V>(b) - Unsigned<V>(a));
  return static_cast<V>(Unsigned<V>(c) + distance);
}

template <typename V, typename Wide>
void multiply_wide(Warp& warp, I i, uint32_t mask) {
  uint64_t* to = warp.row(i.to[0]);
  const uint64_t* a = warp.row(i.from[0]);
  const uint64_t* b = warp.row(i.from[1]);
  const uint64_t* c = i.sources > 2 ? warp.row(i.from[2]) : nullptr;
  each_lane(mask, [&](int l) {
    const auto product = static_cast<Unsigned<Wide>>(wide_product(get<V>(a[l]), get<V>(b[l])));
    const auto addend = c == nullptr ? Unsigned<Wide>{0} : get<Unsigned<Wide>>(c[l]);
    to[l] = put<Unsigned<Wide>>(static_cast<Unsigned<Wide>>(product + addend));
  });
}

// A carry of its own per lane would need a hidden register: it is a row, the last one of `from` or
// `to` of the instructions that have one.
template <typename V>
void add_with_carry(Warp& warp, I i, uint32_t mask) {
  each_lane(mask, [&](int l) {
    const V a = get<V>(warp.row(i.from[0])[l]);
    const V b = get<V>(warp.row(i.from[1])[l]);
    const V carry = i.sources > 2 ? static_cast<V>(warp.row(i.from[2])[l]) : V{0};
    // Subtraction adds the complement; its borrow is the missing carry.
    const V other = i.flag ? static_cast<V>(~b) : b;
    const V in = i.flag ? static_cast<V>(1 - carry) : carry;
    const unsigned __int128 sum = static_cast<unsigned __int128>(a) + other + in;
    warp.row(i.to[0])[l] = put<V>(static_cast<V>(sum));
    if (i.results > 1) {
      const bool out = (sum >> kBits<V> & 1) != 0;
      warp.row(i.to[1])[l] = i.flag ? !out : out;
    }
  });
}

// mad.cc, madc: the product's low or high half (`flag`) plus c plus the carry.
template <typename V>
void multiply_add_with_carry(Warp& warp, I i, uint32_t mask) {
  using U = Unsigned<V>;
  each_lane(mask, [&](int l) {
    const __int128 product =
        wide_product(get<V>(warp.row(i.from[0])[l]), get<V>(warp.row(i.from[1])[l]));
    const U half = static_cast<U>(i.flag ? product >> kBits<V> : product);
    const uint64_t carry = i.sources > 3 ? warp.row(i.from[3])[l] : 0;
    const unsigned __int128 sum =
        static_cast<unsigned __int128>(half) + get<U>(warp.row(i.from[2])[l]) + carry;
    warp.row(i.to[0])[l] = put<U>(static_cast<U>(sum));
    if (i.results > 1) warp.row(i.to[1])[l] = static_cast<uint64_t>(sum >> kBits<V>);
  });
}

bool select_arithmetic(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  const auto is = [&](std::string_view name) { return op == name; };
  if (!is("add") && !is("sub") && !is("mul") && !is("mad") && !is("div") && !is("rem") &&
      !is("min") && !is("max") && !is("neg") && !is("abs") && !is("sad") && !is("mul24") &&
      !is("mad24")) {
    return false;
  }
  const bool low = b.take("lo");
  const bool high = !low && b.take("hi");
  const bool wide = !low && !high && b.take("wide");
  i.flag = high;
  i.how.saturates = b.take("sat");
  i.how.relu = b.take("relu");
  const Type type = b.take_type();
  b.result(b.operand(0));
  for (size_t n = 1; n < b.operand_count(); ++n) {
    const bool is_wide_addend = wide && n == 3;
    b.source(b.operand(n), is_wide_addend ? Type::kB64 : type);
  }
  return with_integer(type, [&](auto zero) {
    using V = decltype(zero);
    if (is("add")) i.run = binary<V, V, add<V>>;
    if (is("sub")) i.run = binary<V, V, subtract<V>>;
    if (is("div")) i.run = binary<V, V, divide<V>>;
    if (is("rem")) i.run = binary<V, V, remainder<V>>;
    if (is("min")) i.run = binary<V, V, minimum<V>>;
    if (is("max")) i.run = binary<V, V, maximum<V>>;
    if (is("neg")) i.run = unary<V, V, negate<V>>;
    if (is("abs")) i.run = unary<V, V, absolute<V>>;
    if (is("sad")) i.run = ternary<V, V, difference<V>>;
    if (is("mul")) i.run = high ? binary<V, V, multiply_high<V>> : binary<V, V, multiply_low<V>>;
    if (is("mad")) {
      i.run = high ? ternary<V, V, multiply_add_high<V>> : ternary<V, V, multiply_add_low<V>>;
    }
    if constexpr (sizeof(V) == 4) {
      if (is("mul24")) i.run = binary<V, V, multiply24<V>>;
      if (is("mad24")) i.run = ternary<V, V, multiply_add24<V>>;
      if (wide) {
        i.run = multiply_wide<V, std::conditional_t<std::is_signed_v<V>, int64_t, uint64_t>>;
      }
    } else if constexpr (sizeof(V) == 2) {
      if (wide) {
        i.run = multiply_wide<V, std::conditional_t<std::is_signed_v<V>, int32_t, uint32_t>>;
      }
    } else if (wide) {
      b.refuse("products of 128 bits are not known");
    }
  });
}

// add.cc, addc, sub.cc, subc, mad.cc, madc: the carry is a register that the text doesn't name.
bool select_carry(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& op = b.statement().opcode;
  const bool reads = op == "addc" || op == "subc" || op == "madc";
  const bool writes = b.take("cc");
  if (!reads && !writes) return false;
  const bool multiplies = op == "mad" || op == "madc";
  if (multiplies) {
    i.flag = b.take("hi");
    if (!i.flag && !b.take("lo")) return false;
  } else {
    i.flag = op == "sub" || op == "subc";
  }
  const Type type = b.take_type();
  b.result(b.operand(0));
  take_sources(b, 1, type);
  const Row carry = b.carry();
  if (reads) i.from[i.sources++] = carry;
  if (writes) i.to[i.results++] = carry;
  return with_integer(type, [&](auto zero) {
    using V = decltype(zero);
    i.run = multiplies ? multiply_add_with_carry<V> : add_with_carry<Unsigned<V>>;
  });
}

}  // namespace

bool select_integer(Builder& b) { return select_carry(b) || select_arithmetic(b); }

}  // namespace ptx
