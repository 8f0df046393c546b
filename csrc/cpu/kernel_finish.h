// The last step of a product, on an instruction set: bias, activation function, rounding. Internal
// linkage, as microkernel.h demands.
#pragma once

#include "microkernel.h"

namespace marlin::cpu {
namespace {

// exp(x) for x in [-87, 88]: x = n ln 2 + r, a polynomial for exp(r) with |r| <= ln 2 / 2
// (Taylor's, to the sixth power: off by less than 2e-7), and n in the exponent.
template <class Isa>
typename Isa::Floats exponential(typename Isa::Floats x) {
  const auto constant = [](float value) { return Isa::broadcast(&value); };
  const auto n = Isa::round(Isa::multiply(x, constant(1.44269504f)));
  const auto whole = Isa::to_floats(n);
  auto r = Isa::multiply_add(whole, constant(-0.693359375f), x);  // ln 2 in two parts
  r = Isa::multiply_add(whole, constant(2.12194440e-4f), r);
  auto sum = constant(1.0f / 720);
  constexpr float kCoefficients[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (const float coefficient : kCoefficients) {
    sum = Isa::multiply_add(sum, r, constant(coefficient));
  }
  return Isa::times_power_of_two(sum, n);
}

// x / (1 + exp(-x)). Below -87 it is less than 1e-35 and taken as at -87; above 87 it is x.
template <class Isa>
typename Isa::Floats silu(typename Isa::Floats x) {
  const float zero = 0.0f;
  const float one = 1.0f;
  const auto clamped = Isa::clamp(x, -87.0f, 87.0f);
  const auto denominator = Isa::add(exponential<Isa>(Isa::subtract(Isa::broadcast(&zero), clamped)),
                                    Isa::broadcast(&one));
  return Isa::divide(Isa::at_least(x, -87.0f), denominator);
}

template <class Isa>
void finish(const Finish& row) {
  constexpr int64_t kLanes = Isa::kLanes;
  const auto with_bias = [](const float* tile, const void* bias, Dtype dtype, int64_t c,
                            int64_t count) {
    const auto value = Isa::load(tile + c);
    return bias == nullptr ? value : Isa::add(value, Isa::load_floats(bias, dtype, c, count));
  };
  for (int64_t c = 0; c < row.columns; c += kLanes) {
    const int64_t count = row.columns - c < kLanes ? row.columns - c : kLanes;
    auto value = with_bias(row.tile, row.bias, row.bias_dtype, c, count);
    if (row.gate != nullptr) {
      const auto gate = with_bias(row.gate, row.gate_bias, row.bias_dtype, c, count);
      value = Isa::multiply(silu<Isa>(gate), value);
    }
    Isa::store_rounded(row.out, row.dtype, c, value, count);
  }
}

}  // namespace
}  // namespace marlin::cpu
