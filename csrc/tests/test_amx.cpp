// The kernel of AMX on emulated tiles, which every CPU can run, and the emulation itself. Where a
// CPU has AMX, the other checks run the path on its own tiles.

#define MARLIN_ROLLED_TILES

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "../common/float_bits.h"
#include "../cpu/dispatch.h"
#include "../cpu/gemm.h"
#include "../cpu/isa_generic.h"
#include "../cpu/kernel_amx.h"
#include "../cpu/kernel_finish.h"
#include "../cpu/plan.h"
#include "check.h"
#include "emulated_tiles.h"
#include "kernels.h"

namespace marlin::test {
namespace {

using cpu::Activation;
using cpu::Generic;
using cpu::Panels;

// The bfloat16 format of path_avx512_bf16.cpp in portable C++.
struct PortableBFloat16 {
  using Sums = Generic::Floats;
  using Opened = Generic::Ints;
  static constexpr int64_t kBytes = 2;
  static constexpr Activation kActivation = Activation::kBFloat16;
  static constexpr bool kOpensBytes = false;
  static constexpr bool kHasRowScales = false;
  static constexpr int steps(int /*bits*/) { return 4; }

  static int32_t zero_word(int zero) {
    return std::bit_cast<int32_t>(static_cast<float>(8 - zero));
  }
  static Sums add_start(const Sums& sums, const Generic::Ints& zeros,
                        const Generic::Ints& row_sum) {
    return Generic::multiply_add(std::bit_cast<Sums>(zeros), std::bit_cast<Sums>(row_sum), sums);
  }
  static const Sums& add_start_at_middle(const Sums& sums, const int32_t* /*row_sum*/) {
    return sums;
  }
  template <int bits, int step>
  static Opened open(const uint32_t* words) {
    return Generic::each<int32_t>([words](size_t i) {
      const uint32_t pair = words[i] >> (4 * step);
      const auto half = [](uint32_t code) {
        return uint32_t{float_to_bfloat16(static_cast<float>(static_cast<int>(code) - 8))};
      };
      return static_cast<int32_t>(half(pair & 15u) | (half((pair >> 16) & 15u) << 16));
    });
  }
  static void store_opened(uint32_t* unit, const Opened& opened) { Generic::store(unit, opened); }
  static const Sums& to_floats(const Sums& sums) { return sums; }
};

void prepare_bfloat16(const void* row, Dtype dtype, const Weights& weights, const Panels& panels,
                      int64_t r) {
  for (int64_t begin = 0; begin < weights.k; begin += panels.segment) {
    std::byte* out = cpu::panel_at<PortableBFloat16>(panels, begin, r);
    float sum = 0;
    for (int64_t i = 0; i < panels.segment; ++i) {
      const uint16_t value = float_to_bfloat16(cpu::load_float(row, dtype, begin + i));
      std::memcpy(out + 2 * i, &value, sizeof(value));
      sum += bfloat16_to_float(value);
    }
    panels.sums[begin / panels.segment * panels.rows + r] = std::bit_cast<int32_t>(sum);
  }
}

using PortableInt8 = cpu::Int8Format<Generic>;

constexpr cpu::Microkernel kBFloat16 =
    cpu::microkernel_on_tiles<EmulatedTiles, Generic, PortableBFloat16>(prepare_bfloat16, nullptr);
constexpr cpu::Microkernel kInt8 = cpu::microkernel_on_tiles<EmulatedTiles, Generic, PortableInt8>(
    cpu::prepare_integers<Generic, PortableInt8>, nullptr);
constexpr cpu::Path kPortable = {"emulated_amx", &kBFloat16, nullptr, &kInt8, cpu::finish<Generic>};

std::vector<Kernel> emulated_kernels(int bits) {
  std::vector<const cpu::Path*> paths = {&kPortable};
#if defined(__x86_64__)
  if (cpu::detect_cpu().avx512_bf16) paths.push_back(&kEmulatedAmxOnAvx512);
#endif
  std::vector<Kernel> kernels;
  for (const cpu::Path* path : paths) {
    if (bits == 4) kernels.push_back({path, Activation::kBFloat16, path->bfloat16});
    kernels.push_back({path, Activation::kInt8, path->int8});
  }
  return kernels;
}

float through_bfloat16(float value) { return bfloat16_to_float(float_to_bfloat16(value)); }

// One column of a row of bfloat16 over one segment: the even and the odd rows of every 32 are
// summed apart, then together.
float sum_of_segment(const LinearCase& linear, int64_t r, int64_t c, int64_t begin, int64_t end) {
  constexpr int64_t kRowsOfTile = 32;
  float sum = 0;
  for (int64_t k = begin; k < end; k += kRowsOfTile) {
    float halves[2] = {};
    for (int64_t i = 0; i < kRowsOfTile; ++i) {
      const int zero = cpu::load_zero(linear.weights(), k / linear.shape().group_size, c);
      const auto weight = static_cast<float>(linear.code_minus_zero(k + i, c) + zero - 8);
      halves[i % 2] =
          std::fma(through_bfloat16(linear.activation(r, k + i)), weight, halves[i % 2]);
    }
    sum += halves[0] + halves[1];
  }
  return sum;
}

// [m][n] of bfloat16. How a row is summed up for the zero points is the preparation's own.
std::vector<float> define(const LinearCase& linear, const Panels& panels) {
  const Shape& s = linear.shape();
  std::vector<float> totals;
  for (int64_t r = 0; r < s.m; ++r) {
    for (int64_t c = 0; c < s.n; ++c) {
      float total = 0;
      for (int64_t begin = 0; begin < s.k; begin += panels.segment) {
        const int64_t group = begin / s.group_size;
        const float row_sum =
            std::bit_cast<float>(panels.sums[begin / panels.segment * panels.rows + r]);
        const auto zero = static_cast<float>(8 - cpu::load_zero(linear.weights(), group, c));
        const float sum = sum_of_segment(linear, r, c, begin, begin + panels.segment);
        total = std::fma(std::fma(zero, row_sum, sum), linear.scale(group, c), total);
      }
      totals.push_back(total);
    }
  }
  return totals;
}

void expect_equal(const std::vector<float>& got, const std::vector<float>& want,
                  const std::string& what) {
  const bool is_equal = got.size() == want.size() &&
                        std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) == 0;
  expect(is_equal, what);
}

// Bit by bit against the definition of bfloat16, which must itself lie close to the double loop,
// and against the integers of the generic path.
void check(const Shape& shape) {
  for (const Flush flush : kFlushes) {
    const LinearCase linear(shape, flush);
    Expected expected(linear);
    for (const Kernel& kernel : emulated_kernels(shape.bits)) {
      if (!kernel.is_integer()) expect_close(kernel, linear, expected, flush);
      const std::vector<float> got = multiply(kernel, linear, flush);
      const Kernel generic = {&cpu::kGenericPath, Activation::kInt8, cpu::kGenericPath.int8};
      const std::vector<float> want =
          kernel.is_integer() ? multiply(generic, linear, flush)
                              : define(linear, Prepared(kernel, linear, flush).panels());
      expect_equal(got, want, describe(kernel, shape) + ": differs from its definition");
      expect(EmulatedTiles::live() == 0, describe(kernel, shape), ": tiles are not released");
    }
  }
}

void check_bits(Shape shape) {
  shape.bits = 8;
  check(shape);
  shape.bits = 4;
  check(shape);
  shape.with_zeros = true;
  check(shape);
}

void with_threads(int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i, i + 1); });
  for (std::thread& thread : threads) thread.join();
}

// The whole product, [m][n] in float32.
std::vector<float> run_gemm(const Kernel& kernel, const LinearCase& linear, int threads) {
  const Shape& s = linear.shape();
  std::vector<float> out(static_cast<size_t>(s.m * s.n));
  cpu::gemm(*kernel.path, kernel.activation,
            {.a = linear.row(0),
             .dtype = s.dtype,
             .m = s.m,
             .a_count = s.k,
             .a_row_stride = s.k,
             .perm = nullptr,
             .weights = linear.weights(),
             .bias = nullptr,
             .bias_dtype = Dtype::kFloat32,
             .gated = false,
             .out = out.data()},
            threads, with_threads);
  return out;
}

// A tile of any shape, and what it holds as the manual's pseudo-code names it.
struct Matrix {
  int rows;
  int row_bytes;
  std::vector<uint8_t> bytes;  // [rows][row_bytes]

  Matrix(int row_count, int bytes_of_row, std::mt19937& random)
      : rows(row_count),
        row_bytes(bytes_of_row),
        bytes(static_cast<size_t>(row_count * bytes_of_row)) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  }

  template <typename Element>
  Element at(int row, int i) const {
    Element value;
    std::memcpy(&value, bytes.data() + row * row_bytes + i * static_cast<int>(sizeof(value)),
                sizeof(value));
    return value;
  }
};

// Shapes of a product: A is m x 4 k bytes, B k x 4 n, C m x 4 n.
struct Product {
  int m;
  int k;
  int n;
};

constexpr Product kProducts[] = {{16, 16, 16}, {1, 1, 1}, {5, 8, 16}, {16, 3, 2}, {7, 16, 9}};

float flushed(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}

float define_bfloat16(const Matrix& a, const Matrix& b, const Matrix& c, int m, int n) {
  float halves[2] = {};
  for (int k = 0; k < b.rows; ++k) {
    for (int i = 0; i < 2; ++i) {
      const float x = flushed(bfloat16_to_float(a.at<uint16_t>(m, 2 * k + i)));
      const float y = flushed(bfloat16_to_float(b.at<uint16_t>(k, 2 * n + i)));
      halves[i] = flushed(std::fma(x, y, halves[i]));
    }
  }
  return flushed(flushed(c.at<float>(m, n)) + flushed(halves[0] + halves[1]));
}

uint32_t define_int8(const Matrix& a, const Matrix& b, const Matrix& c, int m, int n) {
  int64_t sum = c.at<int32_t>(m, n);
  for (int i = 0; i < 4 * b.rows; ++i)
    sum += a.at<int8_t>(m, i) * b.at<uint8_t>(i / 4, 4 * n + i % 4);
  return static_cast<uint32_t>(sum);
}

cpu::TileConfig config_of(const Product& p) {
  cpu::TileConfig config;
  config.set(0, p.m, 4 * p.n);
  config.set(1, p.m, 4 * p.k);
  config.set(2, p.k, 4 * p.n);
  return config;
}

// Any NaN stands for every other.
bool is_same(float got, float want) {
  return (std::isnan(got) && std::isnan(want)) ||
         std::bit_cast<uint32_t>(got) == std::bit_cast<uint32_t>(want);
}

}  // namespace

MARLIN_TEST(emulated_products_are_those_of_the_manual) {
  std::mt19937 random(11);
  for (const Product& p : kProducts) {
    for (int turn = 0; turn < 20; ++turn) {
      Matrix c(p.m, 4 * p.n, random);
      const Matrix a(p.m, 4 * p.k, random);
      const Matrix b(p.k, 4 * p.n, random);
      EmulatedTiles tiles(config_of(p));
      Matrix floats = c;
      Matrix integers = c;
      tiles.load<1>(a.bytes.data(), a.row_bytes);
      tiles.load<2>(b.bytes.data(), b.row_bytes);
      tiles.load<0>(c.bytes.data(), c.row_bytes);
      tiles.dot_bfloat16<0, 1, 2>();
      tiles.store<0>(floats.bytes.data(), c.row_bytes);
      tiles.load<0>(c.bytes.data(), c.row_bytes);
      tiles.dot_signed_unsigned<0, 1, 2>();
      tiles.store<0>(integers.bytes.data(), c.row_bytes);
      for (int m = 0; m < p.m; ++m) {
        for (int n = 0; n < p.n; ++n) {
          const float want = define_bfloat16(a, b, c, m, n);
          expect(is_same(floats.at<float>(m, n), want), "bfloat16 at ", m, ", ", n, ": ",
                 floats.at<float>(m, n), " for ", want);
          expect(integers.at<uint32_t>(m, n) == define_int8(a, b, c, m, n), "int8 at ", m, ", ", n);
        }
      }
    }
  }
}

// Bits at random are seldom near the ends: products that are subnormal, sums that become it.
MARLIN_TEST(emulated_products_take_subnormal_numbers_for_zero) {
  cpu::TileConfig config = config_of({1, 1, 1});
  EmulatedTiles tiles(config);
  const auto product = [&tiles](float c, float a, float b) {
    const uint32_t x = float_to_bfloat16(a);
    const uint32_t y = float_to_bfloat16(b);
    tiles.load<0>(&c, 4);
    tiles.load<1>(&x, 4);
    tiles.load<2>(&y, 4);
    tiles.dot_bfloat16<0, 1, 2>();
    float result = 0;
    tiles.store<0>(&result, 4);
    return result;
  };
  expect(product(0.0f, 2.0f, 3.0f) == 6.0f, "a plain product");
  expect(product(0.0f, 0x1p-130f, 0x1p100f) == 0.0f, "a subnormal operand");
  expect(product(0x1p-130f, 0.0f, 1.0f) == 0.0f, "a subnormal sum at the start");
  expect(product(0.0f, 0x1p-100f, 0x1p-30f) == 0.0f, "a subnormal product");
  expect(product(-0x1p-126f, 0x1.8p-100f, 0x1p-26f) == 0.0f, "a subnormal sum at the end");
  expect(product(0x1p-126f, 0x1p-100f, 0x1p-26f) == 0x1p-125f, "the smallest normal numbers");
}

MARLIN_TEST(emulated_tiles_touch_their_rows_alone) {
  constexpr int64_t kStride = 72;
  cpu::TileConfig config;
  config.set(3, 5, 36);
  config.set(4, 16, 64);
  for (const Flush flush : kFlushes) {
    Guarded<std::byte> from(4 * kStride + 36, flush);
    Guarded<std::byte> to(4 * kStride + 36, flush);
    for (int64_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i % 251);
    EmulatedTiles tiles(config);
    tiles.load<3>(from.data(), kStride);
    tiles.store<3>(to.data(), kStride);
    for (int64_t i = 0; i < to.size(); ++i) {
      const std::byte want = i % kStride < 36 ? from[i] : std::byte{0xFF};
      expect(to[i] == want, "byte ", i, " after load and store");
    }
    tiles.zero<3>();
    tiles.store<3>(to.data(), kStride);
    expect(to[0] == std::byte{0} && to[4 * kStride + 35] == std::byte{0}, "zeros");
  }
}

MARLIN_TEST(tiles_of_every_row_count_match_their_definition) {
  for (int64_t m = 1; m <= 40; ++m) {
    const Dtype dtype = kDtypes[m % 3];
    check_bits({.m = m, .n = 24, .k = 128, .group_size = 128, .dtype = dtype});
  }
  for (const int64_t m : {47, 48, 64, 65, 100}) {
    check({.m = m, .n = 8, .k = 64, .group_size = 32, .with_zeros = true});
  }
}

MARLIN_TEST(tiles_of_every_group_size_match_their_definition) {
  for (const int64_t group_size : {32, 64, 96, 128, 160, 256}) {
    for (const int64_t m : {1, 16, 17, 33}) {
      for (const int64_t groups : {1, 3}) {
        check_bits({.m = m,
                    .n = 72,
                    .k = groups * group_size,
                    .group_size = group_size,
                    .dtype = Dtype::kBFloat16,
                    .scale_dtype = kDtypes[m % 3]});
      }
    }
  }
}

MARLIN_TEST(tiles_of_every_column_tail_match_their_definition) {
  for (int64_t n = 8; n <= 136; n += 8) {
    check_bits({.m = 18, .n = n, .k = 96, .group_size = 32, .packed_scales = n % 16 == 0});
  }
}

// The contract of microkernel.h, which passes that reach back over rows that are done must keep.
MARLIN_TEST(a_row_of_tiles_depends_on_no_slice_and_no_pass) {
  for (const int bits : {4, 8}) {
    const LinearCase linear(
        {.m = 41, .n = 40, .k = 192, .group_size = 64, .bits = bits, .with_zeros = bits == 4},
        Flush::kEnd);
    for (const Kernel& kernel : emulated_kernels(bits)) {
      const Prepared prepared(kernel, linear, Flush::kEnd);
      const cpu::RowSlice all = whole_slice(kernel, prepared.panels());
      const std::vector<float> whole = multiply(kernel, linear, prepared, all, Flush::kEnd);
      const auto expect_same = [&](const cpu::RowSlice& slice) {
        const std::vector<float> part = multiply(kernel, linear, prepared, slice, Flush::kEnd);
        const float* rows = whole.data() + slice.first * linear.shape().n;
        expect_equal(part, std::vector<float>(rows, rows + part.size()),
                     describe(kernel, linear.shape()) + ": rows " + std::to_string(slice.first) +
                         " + " + std::to_string(slice.count) + " by " +
                         std::to_string(slice.per_pass) + " differ from all at once");
      };
      for (int per_pass = 1; per_pass <= 32; ++per_pass) expect_same({0, 41, per_pass, true});
      for (int64_t first = 1; first < 41; first += 6) {
        for (const int64_t count : {1, 15, 16, 17, 33}) {
          if (first + count <= 41) expect_same({first, count, 32, false});
        }
      }
    }
  }
}

// 300 rows are two chunks, and two blocks of columns are cut by rows.
MARLIN_TEST(gemm_on_tiles_gives_the_same_bits_for_every_number_of_threads) {
  for (const int64_t m : {1, 40, 300}) {
    const LinearCase linear({.m = m, .n = 72, .k = 256, .group_size = 32, .with_zeros = true},
                            Flush::kEnd);
    for (const Kernel& kernel : emulated_kernels(4)) {
      const std::vector<float> want = multiply(kernel, linear, Flush::kEnd);
      for (const int threads : {1, 2, 5}) {
        expect_equal(run_gemm(kernel, linear, threads), want,
                     describe(kernel, linear.shape()) + ": " + std::to_string(threads) +
                         " threads differ from one call");
      }
    }
  }
}

MARLIN_TEST(a_product_of_few_rows_takes_the_kernel_for_it) {
  const cpu::Microkernel few{};
  cpu::Microkernel many{};
  expect(&cpu::kernel_for_rows(many, 1) == &many, "there is no other");
  many.of_few_rows = &few;
  expect(&cpu::kernel_for_rows(many, 1) == &few, "one row");
  expect(&cpu::kernel_for_rows(many, 15) == &few, "15 rows");
  expect(&cpu::kernel_for_rows(many, 16) == &many, "16 rows");
  expect(&cpu::kernel_for_rows(many, 1000) == &many, "1000 rows");
}

#if defined(__x86_64__)
MARLIN_TEST(few_rows_of_amx_take_the_kernels_of_avx512) {
  for (const Activation activation : {Activation::kBFloat16, Activation::kInt8}) {
    const cpu::Microkernel* kernel = cpu::microkernel_of(cpu::kAmxPath, activation);
    expect(kernel->of_few_rows == cpu::microkernel_of(cpu::kAvx512Bf16Path, activation),
           "few rows take the kernel of avx512_bf16");
    expect(kernel->takes_bytes == kernel->of_few_rows->takes_bytes, "the same weights");
  }
}
#endif

}  // namespace marlin::test
