// Integers, logic, comparisons and selections.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "build.h"
#include "lanes.h"

namespace ptx {
namespace {

using I = const Instruction&;

template <typename Value>
using Unsigned = std::make_unsigned_t<Value>;

template <typename Value>
constexpr int kBits = 8 * static_cast<int>(sizeof(Value));

// The product with all its bits.
template <typename Value>
__int128 wide_product(Value a, Value b) {
  if constexpr (std::is_signed_v<Value>) return static_cast<__int128>(a) * b;
  return static_cast<__int128>(static_cast<unsigned __int128>(a) * b);
}

// Calls `use` with a value of the integer type that `type` is.
template <typename Use>
bool with_integer(Type type, const Use& use) {
  switch (type) {
    case Type::kU16:
    case Type::kB16:
      use(uint16_t{});
      return true;
    case Type::kS16:
      use(int16_t{});
      return true;
    case Type::kU32:
    case Type::kB32:
      use(uint32_t{});
      return true;
    case Type::kS32:
      use(int32_t{});
      return true;
    case Type::kU64:
    case Type::kB64:
      use(uint64_t{});
      return true;
    case Type::kS64:
      use(int64_t{});
      return true;
    default:
      return false;
  }
}

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

void take_sources(Builder& b, size_t first, Type type) {
  for (size_t n = first; n < b.operand_count(); ++n) b.source(b.operand(n), type);
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

bool select_integer(Builder& b) {
  return select_carry(b) || select_arithmetic(b) || select_logic(b) || select_bits(b) ||
         select_comparison(b) || select_choice(b);
}

}  // namespace ptx
