// Arithmetic and conversions of PTX, exactly rounded. Bits go in, bits come out.
//
// Results that PTX leaves open are pinned: a NaN that arithmetic makes is the canonical one of its
// type (0x7fffffff; 0x7fff for both 16-bit formats), and the approximate functions give the exactly
// computed value, rounded to nearest.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>

namespace ptx {

enum class Round : uint8_t { kNearest, kZero, kUp, kDown };  // .rn .rz .rp .rm
enum class Half : uint8_t { kF16, kBf16 };

// What the modifiers of an instruction ask for.
struct Arithmetic {
  Round round = Round::kNearest;
  bool flushes = false;    // .ftz: subnormal inputs and results become zero of their sign
  bool saturates = false;  // .sat: results clamp to [0, 1], NaN becomes +0
  bool relu = false;       // .relu: negative results become +0; NaN stays the canonical NaN
  bool operator==(const Arithmetic&) const = default;
};

float widen(Half format, uint16_t bits);  // exact
uint16_t narrow(Half format, float value, const Arithmetic& how);
float tf32_from_float(float value, Round round);  // .rn ties to even, .rna is kUp here: ties away

// Where the host's own arithmetic does not do: a modifier, or a NaN as the result.
namespace with_modifiers {
float add(float a, float b, const Arithmetic& how);
float multiply(float a, float b, const Arithmetic& how);
float fused(float a, float b, float c, const Arithmetic& how);
double add(double a, double b, const Arithmetic& how);
double multiply(double a, double b, const Arithmetic& how);
double fused(double a, double b, double c, const Arithmetic& how);
}  // namespace with_modifiers

template <typename Float>
concept Number = std::same_as<Float, float> || std::same_as<Float, double>;

template <Number Float>
Float add(Float a, Float b, const Arithmetic& how) {
  const Float sum = a + b;
  return how == Arithmetic{} && sum == sum ? sum : with_modifiers::add(a, b, how);
}

template <Number Float>
Float multiply(Float a, Float b, const Arithmetic& how) {
  const Float product = a * b;
  return how == Arithmetic{} && product == product ? product : with_modifiers::multiply(a, b, how);
}

// a b + c, rounded once
template <Number Float>
Float fused(Float a, Float b, Float c, const Arithmetic& how) {
  const Float sum = std::fma(a, b, c);
  return how == Arithmetic{} && sum == sum ? sum : with_modifiers::fused(a, b, c, how);
}

float divide(float a, float b, const Arithmetic& how);
float square_root(float a, const Arithmetic& how);

uint16_t add(Half format, uint16_t a, uint16_t b, const Arithmetic& how);
uint16_t multiply(Half format, uint16_t a, uint16_t b, const Arithmetic& how);
uint16_t fused(Half format, uint16_t a, uint16_t b, uint16_t c, const Arithmetic& how);

// min and max of PTX: of a NaN and a number the number, with `nan` the NaN; -0 < +0.
float minimum(float a, float b, bool flushes, bool nan);
float maximum(float a, float b, bool flushes, bool nan);
uint16_t minimum(Half format, uint16_t a, uint16_t b, bool flushes, bool nan);
uint16_t maximum(Half format, uint16_t a, uint16_t b, bool flushes, bool nan);

enum class Approximation : uint8_t {
  kExp2,
  kLog2,
  kReciprocal,
  kReciprocalRoot,
  kSine,
  kCosine,
  kTanh
};
float approximate(Approximation function, float a, bool flushes);
uint16_t approximate(Half format, Approximation function, uint16_t a, bool flushes);

// To an integer of `bits` (8 .. 64) bits: rounded, clamped to its range, NaN becomes 0.
int64_t to_integer(double value, int bits, bool is_signed, Round round);
// From an integer, rounded once.
float float_from_integer(int64_t value, bool is_signed, Round round);
double double_from_integer(int64_t value, bool is_signed, Round round);
uint16_t half_from_integer(Half format, int64_t value, bool is_signed, Round round);
float float_from_double(double value, Round round, bool flushes);
// Rounded to an integer in the same format (cvt.rni.f32.f32 and its like).
double to_integral(double value, Round round);

// e4m3 and e5m2, two in 16 bits, as cvt.rn.satfinite.e4m3x2.f32 makes them and cvt.rn.f16x2.e4m3x2
// reads them.
enum class Byte : uint8_t { kE4m3, kE5m2 };
float widen(Byte format, uint8_t bits);
uint8_t narrow(Byte format, float value, bool relu);  // to nearest even, saturated to finite

}  // namespace ptx
