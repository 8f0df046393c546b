// Arithmetic of float32 and the 16-bit formats. float64, with more bits than a double has to spare,
// is in float64.cpp.
//
// Everything is computed in double, sums are rounded to odd there, and the result is rounded once
// more to its format: with 53 bits against 24 that is the same as one rounding, in every direction
// and for subnormals.

#include "floats.h"

#include <cmath>
#include <limits>

#include "rounding.h"

namespace ptx {
namespace {

// Where nearest + error is the true value: of the two doubles around it the odd one, or the value
// itself. An error that is NaN comes of infinities, which are exact.
double to_odd(double nearest, double error) {
  const uint64_t bits = std::bit_cast<uint64_t>(nearest);
  const bool is_inexact = error < 0 || error > 0;
  const bool moves = is_inexact && (bits & 1) == 0 && std::isfinite(nearest);
  const bool grows = (error > 0) == (nearest > 0);
  const uint64_t step = grows ? 1 : ~uint64_t{0};
  return std::bit_cast<double>(bits + (moves ? step : 0));
}

// a + b rounded to odd, of doubles far from overflow.
double sum_to_odd(double a, double b, Round round) {
  const double sum = a + b;
  if (sum == 0) {
    const bool negative = round == Round::kDown && (std::signbit(a) || std::signbit(b));
    return negative ? -0.0 : sum;
  }
  const double from_b = sum - a;
  return to_odd(sum, (a - (sum - from_b)) + (b - from_b));
}

float to_float(uint64_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }

float float_result(double value, const Arithmetic& how) {
  return to_float(encode(kFloat32, value, how));
}

uint16_t half_result(Half format, double value, const Arithmetic& how) {
  return static_cast<uint16_t>(encode(format_of(format), value, how));
}

template <typename Value>
Value flush_below(Value smallest_normal, Value value) {
  return std::abs(value) < smallest_normal ? std::copysign(Value{0}, value) : value;
}

float operand(float value, bool flushes) {
  return flushes ? flush_below(std::numeric_limits<float>::min(), value) : value;
}

float operand(Half format, uint16_t bits, bool flushes) {
  const float value = widen(format, bits);
  if (!flushes) return value;
  constexpr float kSmallestFloat16 = 0x1p-14f;
  return flush_below(format == Half::kF16 ? kSmallestFloat16 : std::numeric_limits<float>::min(),
                     value);
}

float extreme(float a, float b, bool nan, bool is_minimum) {
  if (a != a || b != b) {
    if (nan || (a != a && b != b)) return to_float(kFloat32.sign - 1);
    return a != a ? b : a;
  }
  const bool a_is_less = a < b || (a == b && std::signbit(a));
  return a_is_less == is_minimum ? a : b;
}

uint16_t extreme(Half format, uint16_t a, uint16_t b, bool flushes, bool nan, bool is_minimum) {
  return narrow(format,
                extreme(operand(format, a, flushes), operand(format, b, flushes), nan, is_minimum),
                {});
}

double value_of(Approximation function, double x) {
  switch (function) {
    case Approximation::kExp2:
      return std::exp2(x);
    case Approximation::kLog2:
      return std::log2(x);
    case Approximation::kReciprocal:
      return 1 / x;
    case Approximation::kReciprocalRoot:
      return 1 / std::sqrt(x);
    case Approximation::kSine:
      return std::sin(x);
    case Approximation::kCosine:
      return std::cos(x);
    case Approximation::kTanh:
      return std::tanh(x);
  }
  return x;
}

}  // namespace

namespace with_modifiers {

float add(float a, float b, const Arithmetic& how) {
  return float_result(sum_to_odd(operand(a, how.flushes), operand(b, how.flushes), how.round), how);
}

float multiply(float a, float b, const Arithmetic& how) {
  return float_result(double{operand(a, how.flushes)} * operand(b, how.flushes), how);
}

float fused(float a, float b, float c, const Arithmetic& how) {
  const double product = double{operand(a, how.flushes)} * operand(b, how.flushes);
  return float_result(sum_to_odd(product, operand(c, how.flushes), how.round), how);
}

}  // namespace with_modifiers

// A quotient or root that is no number r of 25 bits is far from all of them: a - r b and a - r r
// are integers in the units of their factors, so that they differ from 0 by 2^-50 a or more. The
// double lies on the same side of r.
float divide(float a, float b, const Arithmetic& how) {
  return float_result(double{operand(a, how.flushes)} / operand(b, how.flushes), how);
}

float square_root(float a, const Arithmetic& how) {
  return float_result(std::sqrt(double{operand(a, how.flushes)}), how);
}

uint16_t add(Half format, uint16_t a, uint16_t b, const Arithmetic& how) {
  return half_result(
      format,
      sum_to_odd(operand(format, a, how.flushes), operand(format, b, how.flushes), how.round), how);
}

uint16_t multiply(Half format, uint16_t a, uint16_t b, const Arithmetic& how) {
  return half_result(
      format, double{operand(format, a, how.flushes)} * operand(format, b, how.flushes), how);
}

uint16_t fused(Half format, uint16_t a, uint16_t b, uint16_t c, const Arithmetic& how) {
  const double product = double{operand(format, a, how.flushes)} * operand(format, b, how.flushes);
  return half_result(format, sum_to_odd(product, operand(format, c, how.flushes), how.round), how);
}

float minimum(float a, float b, bool flushes, bool nan) {
  return extreme(operand(a, flushes), operand(b, flushes), nan, true);
}

float maximum(float a, float b, bool flushes, bool nan) {
  return extreme(operand(a, flushes), operand(b, flushes), nan, false);
}

uint16_t minimum(Half format, uint16_t a, uint16_t b, bool flushes, bool nan) {
  return extreme(format, a, b, flushes, nan, true);
}

uint16_t maximum(Half format, uint16_t a, uint16_t b, bool flushes, bool nan) {
  return extreme(format, a, b, flushes, nan, false);
}

float approximate(Approximation function, float a, bool flushes) {
  return float_result(value_of(function, operand(a, flushes)), {.flushes = flushes});
}

uint16_t approximate(Half format, Approximation function, uint16_t a, bool flushes) {
  return half_result(format, value_of(function, operand(format, a, flushes)), {.flushes = flushes});
}

}  // namespace ptx
