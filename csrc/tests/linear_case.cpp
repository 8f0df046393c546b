#include "linear_case.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "../cpu/load.h"
#include "../cpu/prepack.h"

namespace marlin::test {

std::string describe(const Shape& s) {
  static constexpr const char* kNames[] = {"float16", "bfloat16", "float32"};
  return "m " + std::to_string(s.m) + " n " + std::to_string(s.n) + " k " + std::to_string(s.k) +
         " group " + std::to_string(s.group_size) + " bits " + std::to_string(s.bits) +
         (s.with_zeros ? " with zeros " : " without zeros ") + kNames[static_cast<int>(s.dtype)] +
         " scales " + kNames[static_cast<int>(s.scale_dtype)] + (s.packed_scales ? " packed" : "");
}

LinearCase::LinearCase(const Shape& shape, Flush flush, float mean)
    : shape_(shape),
      codes_(static_cast<size_t>(shape.k * shape.n)),
      zeros_(static_cast<size_t>(shape.groups() * shape.n),
             static_cast<uint8_t>(1 << (shape.bits - 1))),
      words_(shape.blocks() * kBlockColumns * (shape.k * shape.bits / 32), flush),
      zero_words_(shape.with_zeros ? shape.scale_count() / 8 : 0, flush),
      scales_(shape.scale_count() * bytes_of(shape.scale_dtype), flush),
      a_(shape.m * shape.k * bytes_of(shape.dtype), flush) {
  std::mt19937 random(static_cast<uint32_t>(shape.m * 1000003 + shape.n * 1009 + shape.k));
  std::normal_distribution<float> normal;
  const uint32_t mask = (1u << shape.bits) - 1u;
  for (uint8_t& code : codes_) code = static_cast<uint8_t>(random() & mask);
  pack_codes();
  // Drawn without zero points, too, so that the rest is the same.
  for (uint8_t& zero : zeros_) {
    const uint8_t drawn = static_cast<uint8_t>(random() & 15u);
    if (shape.with_zeros) zero = drawn;
  }
  if (shape.with_zeros) pack_zeros();
  for (int64_t i = 0; i < shape.groups() * shape.n; ++i) {
    cpu::store_float(scales_.data(), shape.scale_dtype, scale_at(i / shape.n, i % shape.n),
                     0.01f + 0.01f * std::abs(normal(random)));
  }
  for (int64_t i = 0; i < shape.m * shape.k; ++i) {
    cpu::store_float(a_.data(), shape.dtype, i, mean + normal(random));
  }
}

void LinearCase::pack_codes() {
  const Shape& s = shape_;
  const int64_t per_word = 32 / s.bits;
  std::vector<uint32_t> plain(static_cast<size_t>(s.k / per_word * s.n));
  const uint8_t* code = codes_.data();
  for (int64_t i = 0; i < s.k; ++i) {
    uint32_t* words = plain.data() + i / per_word * s.n;
    for (int64_t c = 0; c < s.n; ++c) {
      words[c] |= static_cast<uint32_t>(*code++) << (s.bits * (i % per_word));
    }
  }
  cpu::pack_blocks(plain.data(), {s.n, s.k, s.bits}, 0, s.blocks(), words_.data());
  // Whatever stands in the padding columns must not reach a result.
  const int64_t word_rows = s.k / per_word;
  for (int64_t r = 0; r < word_rows; ++r) {
    uint32_t* last = words_.data() + ((s.blocks() - 1) * word_rows + r) * kBlockColumns;
    std::fill(last + (s.n - (s.blocks() - 1) * kBlockColumns), last + kBlockColumns, 0xDEADBEEFu);
  }
}

void LinearCase::pack_zeros() {
  const uint8_t* zero = zeros_.data();
  for (int64_t i = 0; i < shape_.groups() * shape_.n; i += 8) {
    uint32_t& word = zero_words_[scale_at(i / shape_.n, i % shape_.n) / 8];
    word = 0;
    for (int j = 0; j < 8; ++j) word |= static_cast<uint32_t>(*zero++) << (4 * j);
  }
}

int64_t LinearCase::scale_at(int64_t group, int64_t column) const {
  if (!shape_.packed_scales) return group * shape_.n + column;
  const int64_t block = column / kBlockColumns;
  return (block * shape_.groups() + group) * kBlockColumns + column % kBlockColumns;
}

Weights LinearCase::weights() const {
  const bool packed = shape_.packed_scales;
  return {.words = words_.data(),
          .scales = scales_.data(),
          .zeros = shape_.with_zeros ? zero_words_.data() : nullptr,
          .scale_group_stride = packed ? kBlockColumns : shape_.n,
          .scale_block_stride = packed ? kBlockColumns * shape_.groups() : kBlockColumns,
          .scale_dtype = shape_.scale_dtype,
          .bits = shape_.bits,
          .n = shape_.n,
          .k = shape_.k,
          .group_size = shape_.group_size};
}

const void* LinearCase::row(int64_t r) const {
  return a_.data() + r * shape_.k * bytes_of(shape_.dtype);
}

float LinearCase::activation(int64_t r, int64_t i) const {
  return cpu::load_float(a_.data(), shape_.dtype, r * shape_.k + i);
}

float LinearCase::scale(int64_t group, int64_t column) const {
  return cpu::load_float(scales_.data(), shape_.scale_dtype, scale_at(group, column));
}

int LinearCase::code_minus_zero(int64_t i, int64_t column) const {
  const int64_t group = i / shape_.group_size;
  return codes_.data()[i * shape_.n + column] - zeros_.data()[group * shape_.n + column];
}

void LinearCase::set_activation(int64_t r, int64_t i, float value) {
  cpu::store_float(a_.data(), shape_.dtype, r * shape_.k + i, value);
}

void LinearCase::fill_row(int64_t r, float value) {
  for (int64_t i = 0; i < shape_.k; ++i) set_activation(r, i, value);
}

void LinearCase::fill_codes(int code) {
  std::fill(codes_.begin(), codes_.end(), static_cast<uint8_t>(code));
  pack_codes();
}

void LinearCase::fill_zeros(int zero) {
  std::fill(zeros_.begin(), zeros_.end(), static_cast<uint8_t>(zero));
  pack_zeros();
}

std::vector<double> LinearCase::product(Dtype through) const {
  const int64_t n = shape_.n;
  std::vector<double> sums(static_cast<size_t>(shape_.m * n));
  std::vector<double> weights(static_cast<size_t>(n));
  double* weight = weights.data();
  for (int64_t i = 0; i < shape_.k; ++i) {
    for (int64_t c = 0; c < n; ++c) {
      weight[c] = double{scale(i / shape_.group_size, c)} * code_minus_zero(i, c);
    }
    for (int64_t r = 0; r < shape_.m; ++r) {
      float rounded = 0;
      cpu::store_float(&rounded, through, 0, activation(r, i));
      const double a = double{cpu::load_float(&rounded, through, 0)};
      double* sum = sums.data() + r * n;
      for (int64_t c = 0; c < n; ++c) sum[c] += a * weight[c];
    }
  }
  return sums;
}

}  // namespace marlin::test
