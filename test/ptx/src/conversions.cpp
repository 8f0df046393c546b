// Conversions between the formats of PTX, and between them and integers.

#include <cmath>

#include "floats.h"
#include "rounding.h"

namespace ptx {
namespace {

float to_float(uint64_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }

uint64_t encode_integer(const Format& format, int64_t value, bool is_signed, Round round) {
  const bool negative = is_signed && value < 0;
  const uint64_t bits = static_cast<uint64_t>(value);
  return encode(format, negative, negative ? 0 - bits : bits, 0, round);
}

}  // namespace

// float16 is s eeeee mmmmmmmmmm with bias 15. Moving exponent and mantissa to float32's place gives
// the value times 2^(15 - 127); one multiplication by 2^112 repairs normal and subnormal numbers.
float widen(Half format, uint16_t bits) {
  const uint32_t magnitude = bits & 0x7FFFu;
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t infinity = format == Half::kF16 ? 0x7C00 : 0x7F80;
  if (magnitude > infinity) return to_float(kFloat32.sign - 1);
  if (format == Half::kBf16) return to_float(sign | magnitude << 16);
  if (magnitude == infinity) return to_float(sign | 0x7F800000u);
  return to_float(sign | std::bit_cast<uint32_t>(to_float(magnitude << 13) * 0x1p112f));
}

// .ftz speaks of float32 here: a subnormal float16 as the result stays.
uint16_t narrow(Half format, float value, const Arithmetic& how) {
  const bool is_flushed = how.flushes && std::abs(value) < 0x1p-126f;
  Arithmetic rest = how;
  rest.flushes = false;
  return static_cast<uint16_t>(
      encode(format_of(format), double{is_flushed ? std::copysign(0.0f, value) : value}, rest));
}

float tf32_from_float(float value, Round round) {
  if (value != value) return to_float(kFloat32.sign - 1);
  constexpr uint32_t kDropped = 0x1FFF;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  uint32_t increment = 0;
  if (round == Round::kNearest) increment = (kDropped >> 1) + ((bits >> 13) & 1);
  if (round == Round::kUp) increment = (kDropped >> 1) + 1;
  return to_float((bits + increment) & ~kDropped);
}

double to_integral(double value, Round round) {
  if (value != value) return std::bit_cast<double>(kFloat64.sign - 1);
  switch (round) {
    case Round::kNearest:
      return std::nearbyint(value);
    case Round::kZero:
      return std::trunc(value);
    case Round::kUp:
      return std::ceil(value);
    case Round::kDown:
      return std::floor(value);
  }
  return value;
}

int64_t to_integer(double value, int bits, bool is_signed, Round round) {
  if (value != value) return 0;
  const double whole = to_integral(value, round);
  const int magnitude_bits = is_signed ? bits - 1 : bits;
  const double limit = std::ldexp(1.0, magnitude_bits);
  const uint64_t largest = ~uint64_t{0} >> (64 - magnitude_bits);
  if (whole >= limit) return static_cast<int64_t>(largest);
  if (is_signed) {
    return whole <= -limit ? static_cast<int64_t>(~largest) : static_cast<int64_t>(whole);
  }
  return whole <= 0 ? 0 : static_cast<int64_t>(static_cast<uint64_t>(whole));
}

float float_from_integer(int64_t value, bool is_signed, Round round) {
  return to_float(encode_integer(kFloat32, value, is_signed, round));
}

double double_from_integer(int64_t value, bool is_signed, Round round) {
  return std::bit_cast<double>(encode_integer(kFloat64, value, is_signed, round));
}

uint16_t half_from_integer(Half format, int64_t value, bool is_signed, Round round) {
  return static_cast<uint16_t>(encode_integer(format_of(format), value, is_signed, round));
}

float float_from_double(double value, Round round, bool flushes) {
  return to_float(encode(kFloat32, value, Arithmetic{.round = round, .flushes = flushes}));
}

// e5m2 is the upper half of a float16. e4m3 has no infinity and one NaN of each sign.
float widen(Byte format, uint8_t bits) {
  if (format == Byte::kE5m2) return widen(Half::kF16, static_cast<uint16_t>(bits << 8));
  const int magnitude = bits & 0x7F;
  if (magnitude > static_cast<int>(kE4m3.largest)) return to_float(kFloat32.sign - 1);
  const int field = magnitude >> 3;
  const int fraction = magnitude & 7;
  const float value = field == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                 : std::ldexp(static_cast<float>(8 + fraction), field - 10);
  return (bits & 0x80) != 0 ? -value : value;
}

uint8_t narrow(Byte format, float value, bool relu) {
  const Format& target = format == Byte::kE4m3 ? kE4m3 : kE5m2;
  if (value != value) return static_cast<uint8_t>(target.sign - 1);
  if (relu && !(value > 0)) return 0;
  const uint64_t bits = encode(target, double{value}, Round::kNearest);
  return static_cast<uint8_t>((bits & target.sign) |
                              std::min(bits & (target.sign - 1), target.largest));
}

}  // namespace ptx
