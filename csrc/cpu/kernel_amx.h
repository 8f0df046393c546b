// The microkernel of many rows on tiles: eight registers of up to 16 rows of 64 bytes each, and an
// instruction that multiplies two of them and adds the product to a third (Intel's AMX). Internal
// linkage, as microkernel.h demands.
//
// A template over the tiles, so that the same code runs on the instructions (`HardwareTiles` in
// path_amx.cpp) and, on any CPU, on their definition in portable C++ (`EmulatedTiles` in
// csrc/tests). NOTE: compiled, and checked on emulated tiles; never run on a CPU with AMX.
//
// The sums of kernel_tiles.h, on 32 rows and 32 columns at a time. A stretch of codes is opened
// into a strip of memory, which then holds tiles of weights as it is: a unit of 64 columns is four
// rows of 16 columns, 4 bytes (two or four rows of K) in each. Rows of the panels are rows of tiles
// of activations. The sums of a segment grow in tiles from zero, and get their start (-z S) and
// their scales on the way to the result.
//
//   `Tiles` is made from a TileConfig and gives the tiles back when it ends; it has
//     zero<tile>()                         all rows become zero
//     load<tile>(memory, stride)           each row from memory, `stride` bytes apart
//     store<tile>(memory, stride)          likewise
//     dot_bfloat16<sums, a, b>()           sums += a b, pairs of bfloat16 into float32
//     dot_signed_unsigned<sums, a, b>()    sums += a b, four int8 times uint8 into int32
#pragma once

#include <type_traits>

#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

constexpr int kTiles = 8;
constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;
constexpr int64_t kOpenedBytes = 4;  // of a lane: two rows of K in 16 bits each, or four in 8
constexpr int64_t kTileColumns = kTileRowBytes / kOpenedBytes;  // sums in a row of a tile

// What one configuration instruction reads: the shape of each tile. Without rows and columns: none.
struct alignas(64) TileConfig {
  uint8_t palette = 1;  // the eight tiles of 1 KiB
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // the instruction knows 16 tiles, the palette has 8
  uint8_t rows[16] = {};

  void set(int tile, int64_t tile_rows, int64_t bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};
static_assert(sizeof(TileConfig) == 64, "the instruction reads 64 bytes");

// Two tiles of rows by two of columns: each tile that is loaded is multiplied twice.
constexpr int kTilesAcross = 2;
constexpr int kSums = 0;  // [rows][columns]
constexpr int kActivations = 4;
constexpr int kWeights = 6;
constexpr int kTilePassRows = kTilesAcross * kTileRows;
constexpr int64_t kTilePassColumns = kTilesAcross * kTileColumns;

// For passes of `height` rows over segments of `segment_bytes` of a row of the panels.
inline TileConfig tile_config(int64_t height, int64_t segment_bytes) {
  TileConfig config;
  const int64_t bytes = segment_bytes < kTileRowBytes ? segment_bytes : kTileRowBytes;
  for (int i = 0; i < kTilesAcross; ++i) {
    config.set(kWeights + i, bytes / kOpenedBytes, kTileRowBytes);
    const int64_t left = height - i * kTileRows;
    if (left <= 0) continue;
    const int64_t rows = left < kTileRows ? left : kTileRows;
    config.set(kActivations + i, rows, bytes);
    for (int j = 0; j < kTilesAcross; ++j) {
      config.set(kSums + i * kTilesAcross + j, rows, kTileRowBytes);
    }
  }
  return config;
}

template <class Format>
using TileSum = std::conditional_t<Format::kActivation == Activation::kInt8, int32_t, float>;

// What lies between the tiles and the result, of one pass.
template <class Format>
struct alignas(kPanelAlignment) TileBuffers {
  TileSum<Format> sums[kTilePassRows * kTilePassColumns];
  float partial[kTilePassRows * kTilePassColumns];  // see kernel_tiles.h
};

// What one pass over one stretch needs.
struct TilePass {
  const uint32_t* strip;
  int64_t segments;       // of the stretch
  int64_t segment_bytes;  // of a row of the panels
  const std::byte* a;     // first row
  const int32_t* row_sums;
  int64_t row_sums_stride;  // from a segment to the next
  const float* row_scales;
  const GroupFacts* facts[kMaxSegments];  // per segment
  bool has_zeros;                         // else the codes are symmetric
  int64_t height;
  int64_t done;  // rows at the start that an earlier pass has added
  bool is_first;
  float* tile;
};

template <class Format, int sums, int a, int b, class Tiles>
[[gnu::always_inline]] inline void dot(Tiles& tiles) {
  if constexpr (Format::kActivation == Activation::kInt8) {
    tiles.template dot_signed_unsigned<sums, a, b>();
  } else {
    tiles.template dot_bfloat16<sums, a, b>();
  }
}

// Sums of one segment times 32 columns, without their start: [row][32].
template <class Format, int row_tiles, class Tiles>
[[gnu::always_inline]] inline void sum_tiles(Tiles& tiles, const std::byte* a,
                                             const uint32_t* weights, int64_t segment_bytes,
                                             TileSum<Format>* sums) {
  constexpr int64_t kWeightStride = kBlockColumns * kOpenedBytes;
  constexpr int64_t kSumStride = kTilePassColumns * kOpenedBytes;
  constexpr int64_t kUnits = kTileRowBytes / kOpenedBytes;

  tiles.template zero<kSums>();
  tiles.template zero<kSums + 1>();
  if constexpr (row_tiles == 2) {
    tiles.template zero<kSums + 2>();
    tiles.template zero<kSums + 3>();
  }
  for (int64_t at = 0; at < segment_bytes; at += kTileRowBytes) {
    tiles.template load<kWeights>(weights, kWeightStride);
    tiles.template load<kWeights + 1>(weights + kTileColumns, kWeightStride);
    tiles.template load<kActivations>(a + at, panel_stride<Format>);
    dot<Format, kSums, kActivations, kWeights>(tiles);
    dot<Format, kSums + 1, kActivations, kWeights + 1>(tiles);
    if constexpr (row_tiles == 2) {
      tiles.template load<kActivations + 1>(a + kTileRows * panel_stride<Format> + at,
                                            panel_stride<Format>);
      dot<Format, kSums + 2, kActivations + 1, kWeights>(tiles);
      dot<Format, kSums + 3, kActivations + 1, kWeights + 1>(tiles);
    }
    weights += kUnits * kBlockColumns;
  }
  tiles.template store<kSums>(sums, kSumStride);
  tiles.template store<kSums + 1>(sums + kTileColumns, kSumStride);
  if constexpr (row_tiles == 2) {
    TileSum<Format>* below = sums + kTileRows * kTilePassColumns;
    tiles.template store<kSums + 2>(below, kSumStride);
    tiles.template store<kSums + 3>(below + kTileColumns, kSumStride);
  }
}

// Adds the sums of a segment, from column `c` on, to the result. The same operations in the same
// order as in kernel_tiles.h, so that integers give the same bits. NOTE: what the loop uses is
// copied from `pass` first: vectors may alias anything, so that every store would make it be read
// again.
template <class Isa, class Format>
void add_sums(const TilePass& pass, int64_t segment, int64_t c, TileBuffers<Format>& buffers) {
  const GroupFacts& facts = *pass.facts[segment];
  const int32_t* row_sums = pass.row_sums + segment * pass.row_sums_stride;
  const float* row_scales = pass.row_scales;
  float* tile = pass.tile + c;
  const int64_t done = pass.done;
  const int64_t height = pass.height;
  const bool opens = segment == 0;
  const bool closes = segment + 1 == pass.segments;
  const bool is_first = pass.is_first;
  const bool has_zeros = pass.has_zeros;
  for (int64_t v = 0; v < kTilePassColumns; v += Isa::kLanes) {
    const auto scale = Isa::load(facts.scales + c + v);
    for (int64_t r = done; r < height; ++r) {
      const int64_t at = r * kTilePassColumns + v;
      float* out = tile + r * kBlockColumns + v;
      auto sums = Isa::load(buffers.sums + at);
      if (has_zeros) {
        const auto zeros = Isa::load(facts.zeros + c + v);
        sums = Format::add_start(sums, zeros, Isa::broadcast(row_sums + r));
      } else {
        sums = Format::add_start_at_middle(sums, row_sums + r);
      }
      const auto sum = Format::to_floats(sums);
      if constexpr (Format::kHasRowScales) {
        float* partial = buffers.partial + at;
        const auto before = opens ? Isa::zero_floats() : Isa::load(partial);
        const auto after = Isa::multiply_add(sum, scale, before);
        if (closes) {
          const auto total = is_first ? Isa::zero_floats() : Isa::load(out);
          Isa::store(out, Isa::multiply_add(after, Isa::broadcast(row_scales + r), total));
        } else {
          Isa::store(partial, after);
        }
      } else {
        const auto before = opens && is_first ? Isa::zero_floats() : Isa::load(out);
        Isa::store(out, Isa::multiply_add(sum, scale, before));
      }
    }
  }
}

// All 64 columns of a pass over a stretch.
template <class Isa, class Format, int row_tiles, class Tiles>
void multiply_tiles(Tiles& tiles, const TilePass& pass, TileBuffers<Format>& buffers) {
  const int64_t units = pass.segment_bytes / kOpenedBytes;  // of a segment
  for (int64_t c = 0; c < kBlockColumns; c += kTilePassColumns) {
    for (int64_t segment = 0; segment < pass.segments; ++segment) {
      sum_tiles<Format, row_tiles>(tiles, pass.a + segment * pass.segment_bytes,
                                   pass.strip + segment * units * kBlockColumns + c,
                                   pass.segment_bytes, buffers.sums);
      add_sums<Isa>(pass, segment, c, buffers);
    }
  }
}

template <class Tiles, class Isa, class Format, int bits>
void multiply_block_on_tiles(const Weights& weights, int64_t block, const Panels& panels,
                             const RowSlice& rows, float* tile) {
  constexpr int kRowsPerWord = 32 / bits;
  constexpr int kRowsPerUnit = static_cast<int>(kOpenedBytes / Format::kBytes);
  const uint32_t* words = weights.words + block * (weights.k / kRowsPerWord) * kBlockColumns;
  GroupWindow<Isa, Format> window(weights, block);
  alignas(kPanelAlignment) uint32_t strip[kPanelRows / kRowsPerUnit * kBlockColumns];
  TileBuffers<Format> buffers;

  TilePass pass;
  pass.strip = strip;
  pass.segment_bytes = panels.segment * Format::kBytes;
  pass.row_sums_stride = panels.rows;
  pass.has_zeros = weights.zeros != nullptr;
  pass.height = rows.count < rows.per_pass ? rows.count : rows.per_pass;
  Tiles tiles(tile_config(pass.height, pass.segment_bytes));

  for (int64_t k = 0; k < weights.k; k += panels.stretch) {
    const int64_t end = weights.k - k < panels.stretch ? weights.k : k + panels.stretch;
    pass.segments = (end - k) / panels.segment;
    window.move_to(k, pass.segments, panels.segment, pass.facts);
    pass.is_first = k == 0;
    open_codes<Isa, Format, bits>(words, (end - k) / kRowsPerWord, strip);
    words += (end - k) / kRowsPerWord * kBlockColumns;

    for (int64_t r = 0; r < rows.count; r += pass.height) {
      // All passes have the height of the configuration: the last one reaches back over rows that
      // are done, never beyond the slice.
      const int64_t most = rows.count - pass.height;
      const int64_t first = r < most ? r : most;
      const int64_t row = rows.first + first;
      pass.done = r - first;
      pass.a = panel_at<Format>(panels, k, row);
      pass.row_sums = panels.sums + k / panels.segment * panels.rows + row;
      pass.row_scales = panels.scales + k / panels.stretch * panels.rows + row;
      pass.tile = tile + first * kBlockColumns;
      if (pass.height > kTileRows) {
        multiply_tiles<Isa, Format, 2>(tiles, pass, buffers);
      } else {
        multiply_tiles<Isa, Format, 1>(tiles, pass, buffers);
      }
    }
  }
}

template <class Tiles, class Isa, class Format>
void multiply_on_tiles(const Weights& weights, int64_t block, const Panels& panels,
                       const RowSlice& rows, float* tile) {
  if constexpr (Format::kOpensBytes) {
    if (weights.bits == 8) {
      return multiply_block_on_tiles<Tiles, Isa, Format, 8>(weights, block, panels, rows, tile);
    }
  }
  multiply_block_on_tiles<Tiles, Isa, Format, 4>(weights, block, panels, rows, tile);
}

// `few` is the kernel of the same format for few rows, or null. Codes are opened once in any case.
template <class Tiles, class Isa, class Format>
constexpr Microkernel microkernel_on_tiles(decltype(Microkernel::prepare) prepare,
                                           const Microkernel* few) {
  Microkernel kernel{};
  kernel.tuning.one_segment = {kTilePassRows, kTilePassRows, 0};
  kernel.tuning.several = kernel.tuning.one_segment;
  kernel.takes_bytes = Format::kOpensBytes;
  kernel.prepare = prepare;
  kernel.multiply = multiply_on_tiles<Tiles, Isa, Format>;
  kernel.of_few_rows = few;
  return kernel;
}

}  // namespace
}  // namespace marlin::cpu
