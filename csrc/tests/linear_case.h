// One random Linear in guarded memory, and its product by a plain double loop.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../common/weights.h"
#include "guarded.h"

namespace marlin::test {

inline constexpr Dtype kDtypes[] = {Dtype::kFloat16, Dtype::kBFloat16, Dtype::kFloat32};

inline int64_t bytes_of(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

struct Shape {
  int64_t m = 1;
  int64_t n = 64;
  int64_t k = 128;
  int64_t group_size = 64;
  int bits = 4;
  bool with_zeros = false;  // only with 4 bits
  Dtype dtype = Dtype::kFloat32;
  Dtype scale_dtype = Dtype::kFloat32;
  bool packed_scales = false;  // and zero points: see Weights

  int64_t groups() const { return k / group_size; }
  int64_t blocks() const { return (n + kBlockColumns - 1) / kBlockColumns; }
  int64_t scale_count() const { return groups() * (packed_scales ? blocks() * kBlockColumns : n); }
};

std::string describe(const Shape& shape);

class LinearCase {
 public:
  // Activations are normal around `mean`; codes and zero points are uniform. The sizes are
  // the seed: another layout, or one without zero points, holds the same values. Padding is poison.
  LinearCase(const Shape& shape, Flush flush, float mean = 0.0f);

  const Shape& shape() const { return shape_; }
  Weights weights() const;
  const void* row(int64_t r) const;
  float activation(int64_t r, int64_t i) const;
  float scale(int64_t group, int64_t column) const;
  int code_minus_zero(int64_t i, int64_t column) const;

  void set_activation(int64_t r, int64_t i, float value);
  void fill_row(int64_t r, float value);
  void fill_codes(int code);
  void fill_zeros(int zero);

  // [m][n]: sum over k of activation * (code - zero) * scale, in double. The activations are first
  // rounded to `through`.
  std::vector<double> product(Dtype through = Dtype::kFloat32) const;

 private:
  void pack_codes();
  void pack_zeros();

  // Where the scale of one column in one group stands, by the definition in weights.h; that of the
  // zero point is the same, eight to a word.
  int64_t scale_at(int64_t group, int64_t column) const;

  Shape shape_;
  std::vector<uint8_t> codes_;  // [k][n]
  std::vector<uint8_t> zeros_;  // [groups][n]
  Guarded<uint32_t> words_;
  Guarded<uint32_t> zero_words_;
  Guarded<std::byte> scales_;
  Guarded<std::byte> a_;
};

}  // namespace marlin::test
