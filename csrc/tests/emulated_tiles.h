// The tiles of kernel_amx.h in portable C++, as Intel's manual defines the instructions (Software
// Developer's Manual, volume 2, LDTILECFG to TILEZERO): shapes, strides, the order of products and
// sums. Where an instruction would fault, the program ends.
//
// Internal linkage and nothing of the standard library, so that a file compiled for one instruction
// set may include it (see microkernel.h).
#pragma once

#include "../cpu/kernel_amx.h"
#include "../cpu/microkernel.h"

namespace marlin::test {

#if defined(__x86_64__)
// The path of AMX with its own vectors, but emulated tiles. Needs CpuFeatures::avx512_bf16.
extern const cpu::Path kEmulatedAmxOnAvx512;
#endif

namespace {

class EmulatedTiles {
 public:
  // LDTILECFG: #GP for what the palette does not have; all tiles become zero.
  explicit EmulatedTiles(const cpu::TileConfig& config) : config_(config) {
    require(config.palette == 1 && config.start_row == 0);
    for (const uint8_t byte : config.reserved) require(byte == 0);
    for (int tile = 0; tile < 16; ++tile) {
      const bool is_used = config.rows[tile] != 0;
      require(config.rows[tile] <= cpu::kTileRows && config.row_bytes[tile] <= kRowBytes);
      require(is_used == (config.row_bytes[tile] != 0) && (!is_used || tile < cpu::kTiles));
    }
    ++live();
  }
  ~EmulatedTiles() { --live(); }  // TILERELEASE
  EmulatedTiles(const EmulatedTiles&) = delete;
  EmulatedTiles& operator=(const EmulatedTiles&) = delete;

  // Configurations that this thread holds.
  static int& live() {
    static thread_local int count = 0;
    return count;
  }

  // TILEZERO
  template <int tile>
  void zero() {
    require_configured(tile);
    __builtin_memset(tiles_[tile], 0, sizeof(tiles_[tile]));
  }

  // TILELOADD: the rest of a row, and the rows beyond, become zero.
  template <int tile>
  void load(const void* memory, int64_t stride) {
    zero<tile>();
    const auto* row = static_cast<const std::byte*>(memory);
    for (int r = 0; r < config_.rows[tile]; ++r) {
      __builtin_memcpy(tiles_[tile][r], row, config_.row_bytes[tile]);
      row += stride;
    }
  }

  // TILESTORED
  template <int tile>
  void store(void* memory, int64_t stride) const {
    require_configured(tile);
    auto* row = static_cast<std::byte*>(memory);
    for (int r = 0; r < config_.rows[tile]; ++r) {
      __builtin_memcpy(row, tiles_[tile][r], config_.row_bytes[tile]);
      row += stride;
    }
  }

  // TDPBF16PS: the even and the odd rows of K are summed apart, with fused multiplications from
  // zero; then one to the other, and both to what the tile held. Subnormal operands and results are
  // zero everywhere.
  template <int sums, int a, int b>
  void dot_bfloat16() {
    require_product(sums, a, b);
    const int pairs = config_.row_bytes[a] / 4;
    const int columns = config_.row_bytes[sums] / 4;
    for (int m = 0; m < config_.rows[sums]; ++m) {
      float row[kColumns][2] = {};
      for (int k = 0; k < pairs; ++k) {
        for (int n = 0; n < columns; ++n) {
          for (int i = 0; i < 2; ++i) {
            row[n][i] = flushed(
                __builtin_fmaf(bfloat16<a>(m, 2 * k + i), bfloat16<b>(k, 2 * n + i), row[n][i]));
          }
        }
      }
      for (int n = 0; n < columns; ++n) {
        const float both = flushed(row[n][0] + row[n][1]);
        write<sums>(m, n, flushed(flushed(read<sums, float>(m, n)) + both));
      }
    }
  }

  // TDPBSUD: sums wrap, nothing saturates.
  template <int sums, int a, int b>
  void dot_signed_unsigned() {
    require_product(sums, a, b);
    for (int m = 0; m < config_.rows[sums]; ++m) {
      for (int k = 0; k < config_.row_bytes[a] / 4; ++k) {
        for (int n = 0; n < config_.row_bytes[sums] / 4; ++n) {
          uint32_t sum = read<sums, uint32_t>(m, n);
          for (int i = 0; i < 4; ++i) {
            const int x = read<a, int8_t>(m, 4 * k + i);
            const int y = read<b, uint8_t>(k, 4 * n + i);
            sum += static_cast<uint32_t>(x * y);
          }
          write<sums>(m, n, sum);
        }
      }
    }
  }

 private:
  static constexpr int kRowBytes = cpu::kTileRowBytes;
  static constexpr int kColumns = kRowBytes / 4;

  static void require(bool holds) {
    if (!holds) __builtin_trap();
  }
  void require_configured(int tile) const { require(config_.rows[tile] != 0); }

  // #UD unless the shapes are those of a product and the tiles are three.
  void require_product(int sums, int a, int b) const {
    require_configured(sums);
    require_configured(a);
    require_configured(b);
    require(sums != a && sums != b && a != b);
    require(config_.row_bytes[sums] % 4 == 0 && config_.row_bytes[a] % 4 == 0);
    require(config_.rows[sums] == config_.rows[a]);
    require(config_.row_bytes[sums] == config_.row_bytes[b]);
    require(config_.row_bytes[a] / 4 == config_.rows[b]);
  }

  template <int tile, typename Element>
  Element read(int row, int i) const {
    Element value;
    __builtin_memcpy(&value, tiles_[tile][row] + i * static_cast<int>(sizeof(Element)),
                     sizeof(Element));
    return value;
  }
  template <int tile, typename Element>
  void write(int row, int i, Element value) {
    __builtin_memcpy(tiles_[tile][row] + i * static_cast<int>(sizeof(Element)), &value,
                     sizeof(Element));
  }

  template <int tile>
  float bfloat16(int row, int i) const {
    const uint32_t bits = static_cast<uint32_t>(read<tile, uint16_t>(row, i)) << 16;
    return flushed(__builtin_bit_cast(float, bits));
  }

  static float flushed(float value) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, value);
    const bool is_subnormal = (bits & 0x7F800000u) == 0;
    return is_subnormal ? __builtin_bit_cast(float, bits & 0x80000000u) : value;
  }

  cpu::TileConfig config_;
  std::byte tiles_[cpu::kTiles][cpu::kTileRows][kRowBytes] = {};
};

}  // namespace
}  // namespace marlin::test
