// One random 4-bit Linear in guarded memory, and its product by a plain double loop.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "../cpu/gemm.h"
#include "../cpu/load.h"
#include "../cpu/prepack.h"
#include "guarded.h"

namespace marlin::test {

struct Shape {
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t a_count;  // columns of the activations, <= k
  int64_t group_size;
  bool with_zeros;
  Dtype dtype;
  Dtype scale_dtype;
};

class LinearCase {
 public:
  LinearCase(const Shape& shape, Flush flush, uint32_t seed, float mean = 0.0f);

  Weights weights() const;
  cpu::ActivationRow row(int64_t r) const;
  const void* activations() const { return a_.data(); }

  // sum over k of a[r][k] * (code - zero) * scale, in double.
  double expected(int64_t r, int64_t column) const;

 private:
  Shape shape_;
  std::vector<uint8_t> codes_;  // [k][n]
  std::vector<uint8_t> zeros_;  // [groups][n]
  Guarded<uint32_t> words_;
  Guarded<uint32_t> zero_words_;
  Guarded<std::byte> scales_;
  Guarded<std::byte> a_;
};

inline size_t bytes_of(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

inline LinearCase::LinearCase(const Shape& shape, Flush flush, uint32_t seed, float mean)
    : shape_(shape),
      codes_(static_cast<size_t>(shape.k * shape.n)),
      zeros_(static_cast<size_t>(shape.k / shape.group_size * shape.n), 8),
      words_(static_cast<size_t>((shape.n + 63) / 64 * 64 * (shape.k / 8)), flush),
      zero_words_(static_cast<size_t>(shape.k / shape.group_size * shape.n / 8), flush),
      scales_(
          static_cast<size_t>(shape.k / shape.group_size * shape.n) * bytes_of(shape.scale_dtype),
          flush),
      a_(static_cast<size_t>(shape.m * shape.a_count) * bytes_of(shape.dtype), flush) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> code(0, 15);
  std::normal_distribution<float> normal;
  const size_t n = static_cast<size_t>(shape.n);

  std::vector<uint32_t> plain(static_cast<size_t>(shape.k / 8) * n);
  for (size_t i = 0; i < codes_.size(); ++i) {
    codes_[i] = static_cast<uint8_t>(code(random));
    const size_t row = i / n;
    plain[row / 8 * n + i % n] |= static_cast<uint32_t>(codes_[i]) << (4 * (row % 8));
  }
  cpu::pack_blocks(plain.data(), shape.n, shape.k, 0, (shape.n + 63) / 64, words_.data());
  // Whatever stands in the padding columns must not reach a result.
  for (size_t i = 0; i < words_.size(); ++i) {
    const size_t column = i / static_cast<size_t>(shape.k / 8 * 64) * 64 + i % 64;
    if (column >= n) words_[i] = 0xDEADBEEFu;
  }

  std::fill(zero_words_.data(), zero_words_.data() + zero_words_.size(), 0u);
  for (size_t i = 0; i < zeros_.size(); ++i) {
    if (shape.with_zeros) zeros_[i] = static_cast<uint8_t>(code(random));
    zero_words_[i / 8] |= static_cast<uint32_t>(zeros_[i]) << (4 * (i % 8));
    cpu::store_float(scales_.data(), shape.scale_dtype, static_cast<int64_t>(i),
                     0.01f + 0.01f * std::abs(normal(random)));
  }
  for (int64_t i = 0; i < shape.m * shape.a_count; ++i) {
    cpu::store_float(a_.data(), shape.dtype, i, mean + normal(random));
  }
}

inline Weights LinearCase::weights() const {
  return {words_.data(),      scales_.data(), shape_.with_zeros ? zero_words_.data() : nullptr,
          shape_.scale_dtype, shape_.n,       shape_.k,
          shape_.group_size};
}

inline cpu::ActivationRow LinearCase::row(int64_t r) const {
  return {a_.data() + static_cast<size_t>(r * shape_.a_count) * bytes_of(shape_.dtype),
          shape_.dtype, shape_.a_count};
}

inline double LinearCase::expected(int64_t r, int64_t column) const {
  double sum = 0;
  for (int64_t k = 0; k < shape_.a_count; ++k) {
    const size_t group = static_cast<size_t>(k / shape_.group_size * shape_.n + column);
    const double weight = codes_[static_cast<size_t>(k * shape_.n + column)] - zeros_[group];
    const float scale =
        cpu::load_float(scales_.data(), shape_.scale_dtype, static_cast<int64_t>(group));
    const float a = cpu::load_float(a_.data(), shape_.dtype, r * shape_.a_count + k);
    sum += double{a} * weight * double{scale};
  }
  return sum;
}

}  // namespace marlin::test
