// The path for Advanced SIMD with the dot products of bytes of ARMv8.2. Compiled with flags of its
// own.

#include "formats_neon.h"
#include "isa_neon.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

// One instruction multiplies and adds four bytes in each of four lanes.
struct DotInt8 : NeonSignedBytes {
  template <int step>
  static int8x8_t load_unit(const std::byte* a) {
    return vreinterpret_s8_u64(load_four_bytes(a + step * kUnitBytes));
  }
  template <int bits>
  static Sums multiply_add(Sums sums, Opened weight, int8x8_t unit) {
    return {vdotq_lane_s32(sums.low, weight.low, unit, 0),
            vdotq_lane_s32(sums.high, weight.high, unit, 0)};
  }
};

// Two registers per lane of sums leave room for half the rows.
struct NeonOfTwoSums : Neon {
  static constexpr int kMaxRows = 6;
  static constexpr int kMaxRowsOfSeveral = 4;
  static constexpr int kManyRowsOfSeveral = 4;
  static constexpr int vectors_beside(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
  static constexpr int vectors_of_several(int rows) { return vectors_beside(2 * rows); }
};

// 16-bit activations with codes of 4 bits, as two dot products of bytes: with a = 256 high + low,
// 0 <= low < 256, sum a q = 256 sum high q + sum low q. The first is of signed bytes, the second of
// unsigned ones, and a code is either. A step opens four rows of a word, 0 4 1 5 or 2 6 3 7.
struct SplitInt16 : NeonSignedBytes {
  static constexpr int64_t kBytes = 2;
  static constexpr Activation kActivation = Activation::kInt16;
  static constexpr int64_t kUnitBytes = 8;

  struct Sums {
    Neon::Ints of_low, of_high;
  };
  static Sums start(Neon::Ints zeros, Neon::Ints row_sum) {
    return {Int8Format<Neon>::start(zeros, row_sum), Neon::zero_ints()};
  }
  static Sums start_at_middle(const int32_t* row_sum) {
    return {Int8Format<Neon>::start_at_middle(row_sum), Neon::zero_ints()};
  }
  static Neon::Floats to_floats(Sums sums) {
    return Neon::to_floats({with_high(sums.of_low.low, sums.of_high.low),
                            with_high(sums.of_low.high, sums.of_high.high)});
  }
  static Neon::Floats add_stretch(Neon::Floats total, Sums sums, Neon::Floats scale,
                                  const float* row_scale) {
    const auto partial = Neon::multiply(to_floats(sums), scale);
    return Neon::multiply_add(partial, Neon::broadcast(row_scale), total);
  }

  // The low bytes of the rows of a step, then the high ones. NOTE: reads four bytes more than a
  // word has rows, at the end of the panel those of its padding.
  template <int step>
  static int8x8_t load_unit(const std::byte* a) {
    constexpr uint64_t kOrder = 0x0B0309010A020800;
    const auto* rows = reinterpret_cast<const uint8_t*>(a) + step / 2 * 16 + step % 2 * 4;
    return vreinterpret_s8_u8(vqtbl1_u8(vld1q_u8(rows), vcreate_u8(kOrder)));
  }
  template <int bits>
  static Sums multiply_add(Sums sums, Opened weight, int8x8_t unit) {
    const auto dot_low = [unit](int32x4_t sum, int8x16_t codes) {
      return vreinterpretq_s32_u32(vdotq_lane_u32(
          vreinterpretq_u32_s32(sum), vreinterpretq_u8_s8(codes), vreinterpret_u8_s8(unit), 0));
    };
    sums.of_low.low = dot_low(sums.of_low.low, weight.low);
    sums.of_low.high = dot_low(sums.of_low.high, weight.high);
    sums.of_high.low = vdotq_lane_s32(sums.of_high.low, weight.low, unit, 1);
    sums.of_high.high = vdotq_lane_s32(sums.of_high.high, weight.high, unit, 1);
    return sums;
  }

 private:
  static int32x4_t with_high(int32x4_t low, int32x4_t high) {
    return vaddq_s32(low, vshlq_n_s32(high, 8));
  }
};

// Codes of 8 bits fit no signed byte without an offset that the sum of the activations' low bytes
// would have to repair: they are multiplied in 16 bits.
void multiply_int16(const Weights& weights, int64_t block, const Panels& panels,
                    const RowSlice& rows, float* tile) {
  if (weights.bits == 8) {
    return multiply_block<NeonOfTwoSums, NeonInt16, 8>(weights, block, panels, rows, tile);
  }
  multiply_block<NeonOfTwoSums, SplitInt16, 4>(weights, block, panels, rows, tile);
}

constexpr Microkernel kInt16 = [] {
  auto kernel = microkernel<NeonOfTwoSums, NeonInt16>(prepare_integers<Neon, NeonInt16>);
  kernel.multiply = multiply_int16;
  return kernel;
}();
constexpr Microkernel kInt8 = microkernel<Neon, DotInt8>(prepare_integers<Neon, DotInt8>);

}  // namespace

const Path kNeonDotprodPath = {"neon_dotprod", nullptr, &kInt16, &kInt8, finish<Neon>};

}  // namespace marlin::cpu
