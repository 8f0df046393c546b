// How instructions read and write the rows of a warp.
#pragma once

#include <bit>
#include <cstring>
#include <type_traits>

#include "machine.h"

namespace ptx {

template <typename Value>
Value get(uint64_t bits) {
  if constexpr (std::is_same_v<Value, float>) {
    return std::bit_cast<float>(static_cast<uint32_t>(bits));
  } else if constexpr (std::is_same_v<Value, double>) {
    return std::bit_cast<double>(bits);
  } else {
    return static_cast<Value>(bits);
  }
}

// Bits above the value are zero.
template <typename Value>
uint64_t put(Value value) {
  if constexpr (std::is_same_v<Value, float>) {
    return std::bit_cast<uint32_t>(value);
  } else if constexpr (std::is_same_v<Value, double>) {
    return std::bit_cast<uint64_t>(value);
  } else if constexpr (std::is_same_v<Value, bool>) {
    return value ? 1 : 0;
  } else {
    return static_cast<std::make_unsigned_t<Value>>(value);
  }
}

template <typename Function>
void each_lane(uint32_t mask, const Function& function) {
  if (mask == kAllLanes) {
    for (int lane = 0; lane < kLanes; ++lane) function(lane);
    return;
  }
  for (; mask != 0; mask &= mask - 1) function(std::countr_zero(mask));
}

// to[0] = function(from[0]), and so on with more sources. `function` has no state.
template <typename To, typename From, auto function>
void unary(Warp& warp, const Instruction& i, uint32_t mask) {
  uint64_t* to = warp.row(i.to[0]);
  const uint64_t* a = warp.row(i.from[0]);
  each_lane(mask, [&](int l) { to[l] = put<To>(function(get<From>(a[l]), i)); });
}

template <typename To, typename From, auto function>
void binary(Warp& warp, const Instruction& i, uint32_t mask) {
  uint64_t* to = warp.row(i.to[0]);
  const uint64_t* a = warp.row(i.from[0]);
  const uint64_t* b = warp.row(i.from[1]);
  each_lane(mask, [&](int l) { to[l] = put<To>(function(get<From>(a[l]), get<From>(b[l]), i)); });
}

template <typename To, typename From, auto function>
void ternary(Warp& warp, const Instruction& i, uint32_t mask) {
  uint64_t* to = warp.row(i.to[0]);
  const uint64_t* a = warp.row(i.from[0]);
  const uint64_t* b = warp.row(i.from[1]);
  const uint64_t* c = warp.row(i.from[2]);
  each_lane(mask, [&](int l) {
    to[l] = put<To>(function(get<From>(a[l]), get<From>(b[l]), get<From>(c[l]), i));
  });
}

}  // namespace ptx
