// The instruction set of no CPU in particular: sixteen lanes in an array, portable C++. Obvious
// first: it is what the others are checked against, bit for bit.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "../common/float_bits.h"
#include "load.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

struct Generic {
  static constexpr int kLanes = 16;
  static constexpr int kMaxRows = 4;
  static constexpr int kMaxRowsOfSeveral = 4;
  static constexpr int kManyRowsOfSeveral = 4;
  using Ints = std::array<int32_t, kLanes>;
  using Floats = std::array<float, kLanes>;

  static constexpr int vectors_beside(int /*rows*/) { return 4; }
  static constexpr int vectors_of_several(int /*rows*/) { return 4; }

  template <typename Value, typename Function>
  static std::array<Value, kLanes> each(const Function& function) {
    std::array<Value, kLanes> result;
    for (size_t i = 0; i < kLanes; ++i) result[i] = function(i);
    return result;
  }

  template <typename To, typename From>
  static To copy(const From* p) {
    To value;
    std::memcpy(&value, p, sizeof(value));
    return value;
  }
  static Ints load(const uint32_t* p) { return copy<Ints>(p); }
  static Ints load(const int32_t* p) { return copy<Ints>(p); }
  static Floats load(const float* p) { return copy<Floats>(p); }
  static void store(uint32_t* p, const Ints& value) { std::memcpy(p, &value, sizeof(value)); }
  static void store(float* p, const Floats& value) { std::memcpy(p, &value, sizeof(value)); }

  static Ints broadcast(const std::byte* p) {
    const int32_t value = copy<int32_t>(p);
    return broadcast(&value);
  }
  static Ints broadcast(const int32_t* p) {
    return each<int32_t>([p](size_t) { return *p; });
  }
  static Floats broadcast(const float* p) {
    return each<float>([p](size_t) { return *p; });
  }
  static Ints zero_ints() { return Ints{}; }
  static Floats zero_floats() { return Floats{}; }

  template <int shift>
  static Ints shift_and(const Ints& words, uint32_t mask) {
    return each<int32_t>([&](size_t i) {
      return static_cast<int32_t>((static_cast<uint32_t>(words[i]) >> shift) & mask);
    });
  }
  static Ints add(const Ints& a, const Ints& b) {
    return each<int32_t>([&](size_t i) { return a[i] + b[i]; });
  }
  static Floats add(const Floats& a, const Floats& b) {
    return each<float>([&](size_t i) { return a[i] + b[i]; });
  }
  static Floats subtract(const Floats& a, const Floats& b) {
    return each<float>([&](size_t i) { return a[i] - b[i]; });
  }
  static Floats multiply(const Floats& a, const Floats& b) {
    return each<float>([&](size_t i) { return a[i] * b[i]; });
  }
  static Floats divide(const Floats& a, const Floats& b) {
    return each<float>([&](size_t i) { return a[i] / b[i]; });
  }
  static Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) {
    return each<float>([&](size_t i) { return std::fma(a[i], b[i], c[i]); });
  }
  static Floats at_least(const Floats& a, float low) {
    return each<float>([&](size_t i) { return a[i] < low ? low : a[i]; });
  }
  static Floats clamp(const Floats& a, float low, float high) {
    return each<float>([&](size_t i) { return a[i] < low ? low : a[i] > high ? high : a[i]; });
  }
  static Floats times_power_of_two(const Floats& a, const Ints& n) {
    return each<float>([&](size_t i) { return std::ldexp(a[i], n[i]); });
  }
  static Floats to_floats(const Ints& a) {
    return each<float>([&](size_t i) { return static_cast<float>(a[i]); });
  }
  // Half to even, as the processor's default mode does. What does not fit gives the lowest integer,
  // as x86 has it.
  static Ints round(const Floats& a) {
    return each<int32_t>([&](size_t i) {
      return std::abs(a[i]) < 2147483648.0f ? static_cast<int32_t>(std::nearbyint(a[i]))
                                            : INT32_MIN;
    });
  }

  static Ints dot_pairs(const Ints& sums, const Ints& a, const Ints& b) {
    return each<int32_t>([&](size_t i) {
      const auto x = std::bit_cast<std::array<int16_t, 2>>(a[i]);
      const auto y = std::bit_cast<std::array<int16_t, 2>>(b[i]);
      return sums[i] + x[0] * y[0] + x[1] * y[1];
    });
  }
  template <int bits>
  static Ints dot_bytes(const Ints& sums, const Ints& codes, const Ints& b) {
    return each<int32_t>([&](size_t i) {
      const auto x = std::bit_cast<std::array<uint8_t, 4>>(codes[i]);
      const auto y = std::bit_cast<std::array<int8_t, 4>>(b[i]);
      return sums[i] + x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
    });
  }

  static Ints max_magnitude(const Ints& largest, const Floats& a) {
    return each<int32_t>(
        [&](size_t i) { return std::max(largest[i], std::bit_cast<int32_t>(std::abs(a[i]))); });
  }
  static uint32_t reduce_max(const Ints& a) {
    return static_cast<uint32_t>(*std::max_element(a.begin(), a.end()));
  }
  static int32_t reduce_add(const Ints& a) {
    int32_t sum = 0;
    for (const int32_t value : a) sum += value;
    return sum;
  }

  static Floats load_floats(const void* data, Dtype dtype, int64_t index, int64_t count) {
    return each<float>([&](size_t i) {
      const int64_t at = static_cast<int64_t>(i);
      return at < count ? load_float(data, dtype, index + at) : 0.0f;
    });
  }
  static void store_rounded(void* data, Dtype dtype, int64_t index, const Floats& value,
                            int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      store_float(data, dtype, index + i, value[static_cast<size_t>(i)]);
    }
  }
  static void store_as_int16(std::byte* p, const Ints& value) {
    for (size_t i = 0; i < kLanes; ++i) {
      const int16_t narrow = static_cast<int16_t>(value[i]);
      std::memcpy(p + 2 * i, &narrow, sizeof(narrow));
    }
  }
  // In the order in which a step opens the rows of a word.
  static void store_as_int8(std::byte* p, const Ints& value, int bits) {
    constexpr std::array<size_t, 8> kNibbles = {0, 4, 1, 5, 2, 6, 3, 7};
    constexpr std::array<size_t, 8> kBytes = {0, 2, 1, 3, 4, 6, 5, 7};
    const auto& order = bits == 4 ? kNibbles : kBytes;
    for (size_t i = 0; i < kLanes; ++i) {
      p[i] = static_cast<std::byte>(value[i / 8 * 8 + order[i % 8]]);
    }
  }
};

}  // namespace
}  // namespace marlin::cpu
