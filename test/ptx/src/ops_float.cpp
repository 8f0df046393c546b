// Floating point: arithmetic of all formats, minima and maxima, approximate functions.

#include <cmath>

#include "build.h"
#include "lanes.h"

namespace ptx {
namespace {

using I = const Instruction&;

template <Half format>
uint16_t half_add(uint16_t a, uint16_t b, I i) {
  return add(format, a, b, i.how);
}
template <Half format>
uint16_t half_subtract(uint16_t a, uint16_t b, I i) {
  return add(format, a, static_cast<uint16_t>(b ^ 0x8000), i.how);
}
template <Half format>
uint16_t half_multiply(uint16_t a, uint16_t b, I i) {
  return multiply(format, a, b, i.how);
}
template <Half format>
uint16_t half_fused(uint16_t a, uint16_t b, uint16_t c, I i) {
  return fused(format, a, b, c, i.how);
}
template <Half format>
uint16_t half_minimum(uint16_t a, uint16_t b, I i) {
  return minimum(format, a, b, i.how.flushes, i.flag);
}
template <Half format>
uint16_t half_maximum(uint16_t a, uint16_t b, I i) {
  return maximum(format, a, b, i.how.flushes, i.flag);
}
// Sign bits only, NaN included; with .ftz, which only float16 has, subnormal numbers become zero.
uint16_t half_flushed(uint16_t a, I i) {
  return i.how.flushes && (a & 0x7C00) == 0 ? static_cast<uint16_t>(a & 0x8000) : a;
}
uint16_t half_negate(uint16_t a, I i) { return static_cast<uint16_t>(half_flushed(a, i) ^ 0x8000); }
uint16_t half_absolute(uint16_t a, I i) { return half_flushed(a, i) & 0x7FFF; }
template <Half format>
uint16_t half_function(uint16_t a, I i) {
  return approximate(format, static_cast<Approximation>(i.choice), a, i.how.flushes);
}

// The same on both halves of a word.
template <auto function>
uint32_t on_both(uint32_t a, I i) {
  const uint32_t low = function(static_cast<uint16_t>(a), i);
  return low | static_cast<uint32_t>(function(static_cast<uint16_t>(a >> 16), i)) << 16;
}
template <auto function>
uint32_t on_both(uint32_t a, uint32_t b, I i) {
  const uint32_t low = function(static_cast<uint16_t>(a), static_cast<uint16_t>(b), i);
  const uint32_t high = function(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16), i);
  return low | high << 16;
}
template <auto function>
uint32_t on_both(uint32_t a, uint32_t b, uint32_t c, I i) {
  const uint32_t low =
      function(static_cast<uint16_t>(a), static_cast<uint16_t>(b), static_cast<uint16_t>(c), i);
  const uint32_t high = function(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16),
                                 static_cast<uint16_t>(c >> 16), i);
  return low | high << 16;
}

template <typename V>
V plus(V a, V b, I i) {
  return add(a, b, i.how);
}
template <typename V>
V minus(V a, V b, I i) {
  return add(a, -b, i.how);
}
template <typename V>
V times(V a, V b, I i) {
  return multiply(a, b, i.how);
}
template <typename V>
V times_plus(V a, V b, V c, I i) {
  return fused(a, b, c, i.how);
}
float over(float a, float b, I i) { return divide(a, b, i.how); }
float root(float a, I i) { return square_root(a, i.how); }
float reciprocal(float a, I i) { return divide(1.0f, a, i.how); }
double over64(double a, double b, I) { return a / b; }
double root64(double a, I) { return std::sqrt(a); }
double reciprocal64(double a, I) { return 1.0 / a; }
float least(float a, float b, I i) { return minimum(a, b, i.how.flushes, i.flag); }
float most(float a, float b, I i) { return maximum(a, b, i.how.flushes, i.flag); }
// Unlike fmin and fmax: of a NaN and a number always the number, and -0 < +0.
double least64(double a, double b, I) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) ? b : a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
double most64(double a, double b, I) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) ? b : a;
  return a > b || (a == b && std::signbit(b)) ? a : b;
}
float function32(float a, I i) {
  return approximate(static_cast<Approximation>(i.choice), a, i.how.flushes);
}
// Sign bits only, NaN included; with .ftz subnormal numbers become zero.
template <typename V>
V opposite(V a, I i) {
  if (i.how.flushes && std::fpclassify(a) == FP_SUBNORMAL) a = std::copysign(V{0}, a);
  return -a;
}
template <typename V>
V magnitude(V a, I i) {
  if (i.how.flushes && std::fpclassify(a) == FP_SUBNORMAL) a = V{0};
  return std::fabs(a);
}
uint32_t with_sign_of(uint32_t a, uint32_t b, I) { return (a & 0x80000000u) | (b & 0x7FFFFFFFu); }
uint64_t with_sign_of64(uint64_t a, uint64_t b, I) {
  constexpr uint64_t kSign = uint64_t{1} << 63;
  return (a & kSign) | (b & ~kSign);
}

enum Test : uint8_t { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };
template <typename V>
bool is_of_class(V a, I i) {
  switch (i.choice) {
    case kFinite:
      return std::isfinite(a);
    case kInfinite:
      return std::isinf(a);
    case kNumber:
      return !std::isnan(a);
    case kNotANumber:
      return std::isnan(a);
    case kNormal:
      return std::isnormal(a);
    default:
      return std::fpclassify(a) == FP_SUBNORMAL;
  }
}

// What an instruction of two or three operands does in one of the 16-bit formats.
template <Half format>
bool choose_half(Instruction& i, const std::string& op, bool is_pair) {
  using U = uint16_t;
  using P = uint32_t;
  const auto set = [&](auto on_one, auto on_pair) { i.run = is_pair ? on_pair : on_one; };
  if (op == "add") {
    set(binary<U, U, half_add<format>>,
        binary<P, P, [](P a, P b, I n) { return on_both<half_add<format>>(a, b, n); }>);
  } else if (op == "sub") {
    set(binary<U, U, half_subtract<format>>,
        binary<P, P, [](P a, P b, I n) { return on_both<half_subtract<format>>(a, b, n); }>);
  } else if (op == "mul") {
    set(binary<U, U, half_multiply<format>>,
        binary<P, P, [](P a, P b, I n) { return on_both<half_multiply<format>>(a, b, n); }>);
  } else if (op == "fma") {
    set(ternary<U, U, half_fused<format>>,
        ternary<P, P, [](P a, P b, P c, I n) { return on_both<half_fused<format>>(a, b, c, n); }>);
  } else if (op == "min") {
    set(binary<U, U, half_minimum<format>>,
        binary<P, P, [](P a, P b, I n) { return on_both<half_minimum<format>>(a, b, n); }>);
  } else if (op == "max") {
    set(binary<U, U, half_maximum<format>>,
        binary<P, P, [](P a, P b, I n) { return on_both<half_maximum<format>>(a, b, n); }>);
  } else if (op == "neg") {
    set(unary<U, U, half_negate>, unary<P, P, [](P a, I n) { return on_both<half_negate>(a, n); }>);
  } else if (op == "abs") {
    set(unary<U, U, half_absolute>,
        unary<P, P, [](P a, I n) { return on_both<half_absolute>(a, n); }>);
  } else if (op == "ex2" || op == "tanh") {
    set(unary<U, U, half_function<format>>,
        unary<P, P, [](P a, I n) { return on_both<half_function<format>>(a, n); }>);
  }
  return i.run != nullptr;
}

bool choose_float(Instruction& i, const std::string& op, bool is_approximate) {
  using F = float;
  if (op == "add") i.run = binary<F, F, plus<F>>;
  if (op == "sub") i.run = binary<F, F, minus<F>>;
  if (op == "mul") i.run = binary<F, F, times<F>>;
  if (op == "fma" || op == "mad") i.run = ternary<F, F, times_plus<F>>;
  if (op == "min") i.run = binary<F, F, least>;
  if (op == "max") i.run = binary<F, F, most>;
  if (op == "neg") i.run = unary<F, F, opposite<F>>;
  if (op == "abs") i.run = unary<F, F, magnitude<F>>;
  if (op == "div") i.run = binary<F, F, over>;
  if (op == "sqrt") i.run = unary<F, F, root>;
  if (op == "rcp" && !is_approximate) i.run = unary<F, F, reciprocal>;
  if (op == "copysign") i.run = binary<uint32_t, uint32_t, with_sign_of>;
  if (op == "testp") i.run = unary<bool, F, is_of_class<F>>;
  if (i.run == nullptr) i.run = unary<F, F, function32>;
  return true;
}

bool choose_double(Instruction& i, const std::string& op) {
  using D = double;
  if (op == "add") i.run = binary<D, D, plus<D>>;
  if (op == "sub") i.run = binary<D, D, minus<D>>;
  if (op == "mul") i.run = binary<D, D, times<D>>;
  if (op == "fma" || op == "mad") i.run = ternary<D, D, times_plus<D>>;
  if (op == "min") i.run = binary<D, D, least64>;
  if (op == "max") i.run = binary<D, D, most64>;
  if (op == "neg") i.run = unary<D, D, opposite<D>>;
  if (op == "abs") i.run = unary<D, D, magnitude<D>>;
  if (op == "div") i.run = binary<D, D, over64>;
  if (op == "sqrt") i.run = unary<D, D, root64>;
  if (op == "rcp") i.run = unary<D, D, reciprocal64>;
  if (op == "copysign") i.run = binary<uint64_t, uint64_t, with_sign_of64>;
  if (op == "testp") i.run = unary<bool, D, is_of_class<D>>;
  return i.run != nullptr;
}

struct Named {
  std::string_view name;
  uint8_t choice;
};

bool is_float_operation(const std::string& op) {
  constexpr std::string_view kNames[] = {"add",  "sub", "mul", "fma",  "mad",      "div",  "min",
                                         "max",  "neg", "abs", "ex2",  "lg2",      "rcp",  "rsqrt",
                                         "sqrt", "sin", "cos", "tanh", "copysign", "testp"};
  for (const std::string_view name : kNames) {
    if (name == op) return true;
  }
  return false;
}

uint8_t function_named(const std::string& op) {
  if (op == "ex2") return static_cast<uint8_t>(Approximation::kExp2);
  if (op == "lg2") return static_cast<uint8_t>(Approximation::kLog2);
  if (op == "rcp") return static_cast<uint8_t>(Approximation::kReciprocal);
  if (op == "rsqrt") return static_cast<uint8_t>(Approximation::kReciprocalRoot);
  if (op == "sin") return static_cast<uint8_t>(Approximation::kSine);
  if (op == "cos") return static_cast<uint8_t>(Approximation::kCosine);
  return static_cast<uint8_t>(Approximation::kTanh);
}

uint8_t take_test(Builder& b) {
  constexpr Named kTests[] = {{"finite", kFinite}, {"infinite", kInfinite},
                              {"number", kNumber}, {"notanumber", kNotANumber},
                              {"normal", kNormal}, {"subnormal", kSubnormal}};
  for (const auto& [name, choice] : kTests) {
    if (b.take(name)) return choice;
  }
  b.refuse("expected a class of numbers among the modifiers");
}

}  // namespace

bool select_float(Builder& b) {
  const std::optional<Type> type = b.last_type();
  const std::string& op = b.statement().opcode;
  if (!type || !is_float_operation(op)) return false;
  Instruction& i = b.instruction();
  const bool is_pair = *type == Type::kF16x2 || *type == Type::kBf16x2;
  const bool is_f16 = *type == Type::kF16 || *type == Type::kF16x2;
  const bool is_bf16 = *type == Type::kBf16 || *type == Type::kBf16x2;
  if (!is_f16 && !is_bf16 && *type != Type::kF32 && *type != Type::kF64) return false;

  // The approximate division and the full-range one are exact here, and so are approximate roots.
  const bool is_approximate = b.take("approx") || b.take("full");
  i.how.round = b.take_round().value_or(Round::kNearest);
  i.how.flushes = b.take("ftz");
  i.how.saturates = b.take("sat");
  i.how.relu = b.take("relu");
  i.flag = b.take("NaN");
  if (b.take("xorsign")) b.refuse("`.xorsign.abs` is not known");
  i.choice = op == "testp" ? take_test(b) : function_named(op);
  b.take_type();
  b.result(b.operand(0));
  for (size_t n = 1; n < b.operand_count(); ++n) b.source(b.operand(n), *type);
  if (is_f16) return choose_half<Half::kF16>(i, op, is_pair);
  if (is_bf16) return choose_half<Half::kBf16>(i, op, is_pair);
  if (*type == Type::kF32) return choose_float(i, op, is_approximate);
  if (i.how.round != Round::kNearest && (op == "div" || op == "sqrt" || op == "rcp")) {
    b.refuse("of doubles only rounding to nearest is known");
  }
  return choose_double(i, op);
}

}  // namespace ptx
