// Arithmetic of float64 in integers. PTX knows no modifiers here but the rounding.

#include <cmath>

#include "floats.h"
#include "rounding.h"

namespace ptx {
namespace {

Exact exact(double value) {
  const Parts parts = take_apart(value);
  return {parts.negative, parts.significand, parts.exponent};
}

double to_double(uint64_t bits) { return std::bit_cast<double>(bits); }

}  // namespace

namespace with_modifiers {

double fused(double a, double b, double c, const Arithmetic& how) {
  const bool is_finite = std::isfinite(a) && std::isfinite(b) && std::isfinite(c);
  if (!is_finite || how.round == Round::kNearest) {
    const double result = std::fma(a, b, c);
    return result == result ? result : to_double(kFloat64.sign - 1);
  }
  const Parts left = take_apart(a);
  const Parts right = take_apart(b);
  const Exact product{left.negative != right.negative, Wide{left.significand} * right.significand,
                      left.exponent + right.exponent};
  return to_double(encode(kFloat64, sum(product, exact(c), how.round), how.round));
}

double add(double a, double b, const Arithmetic& how) { return fused(a, 1.0, b, how); }

// Adding a zero of the product's sign changes nothing, not even the sign of a zero.
double multiply(double a, double b, const Arithmetic& how) {
  return fused(a, b, std::signbit(a) == std::signbit(b) ? 0.0 : -0.0, how);
}

}  // namespace with_modifiers
}  // namespace ptx
