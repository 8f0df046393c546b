// The path for Advanced SIMD of ARMv8.0, which every arm64 CPU has. Compiled with flags of its own.

#include "formats_neon.h"
#include "isa_neon.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

// Products of bytes: two fit 16 bits with their sum, at most 2 * 128 * 127.
struct NeonInt8 : NeonSignedBytes {
  template <int step>
  static int8x16_t load_unit(const std::byte* a) {
    int32_t value;
    __builtin_memcpy(&value, a + step * kUnitBytes, sizeof(value));
    return vreinterpretq_s8_s32(vld1q_dup_s32(&value));
  }
  template <int bits>
  static Sums multiply_add(Sums sums, Opened weight, int8x16_t unit) {
    const auto dot = [unit](int32x4_t sum, int8x16_t codes) {
      const int16x8_t first = vmull_s8(vget_low_s8(codes), vget_low_s8(unit));
      return vpadalq_s16(sum, vpaddq_s16(first, vmull_high_s8(codes, unit)));
    };
    return {dot(sums.low, weight.low), dot(sums.high, weight.high)};
  }
};

constexpr Microkernel kInt16 = microkernel<Neon, NeonInt16>(prepare_integers<Neon, NeonInt16>);
constexpr Microkernel kInt8 = microkernel<Neon, NeonInt8>(prepare_integers<Neon, NeonInt8>);

}  // namespace

const Path kNeonPath = {"neon", nullptr, &kInt16, &kInt8, finish<Neon>};

}  // namespace marlin::cpu
