// The algorithm of every microkernel, once: templates over an instruction set (`Isa`, see
// isa_*.h) and a number format (`Format`, see kernel_formats.h). Everything has internal linkage,
// as microkernel.h demands of its includers.
//
// A block of 64 columns lies across the lanes, so that no sum runs across a register. Per segment:
//   sums[r][c] = sum over k of a[r][k] * (code[k][c] - zero[c])
//   tile[r][c] += sums[r][c] * (scale of the weights * scale of the activations)
// The zero point is not subtracted from each code. With S the sum of the segment's activations,
// sum a (q - z) = sum a q - z S: the sums start at -z S.
//
// Few rows open the codes in registers, once per pass. Many rows (decode_once_rows) open a segment
// into a strip of memory that stays in the first-level cache, and every pass reads the strip. Both
// do the same operations in the same order, so they give the same bits.
#pragma once

#include <utility>

#include "microkernel.h"

namespace marlin::cpu {
namespace {

// What the rows of a tile share in one group: scales as float32, zero points in the form that
// Format::start takes.
template <class Format>
struct alignas(kPanelAlignment) GroupFacts {
  float scales[kBlockColumns];
  int32_t zeros[kBlockColumns];
};

// Asks for the scales and zero points of one group. They lie a whole row of the scales apart from
// the next group's, which no hardware prefetcher follows: without this, one row of 4096 x 4096 took
// 480 us instead of 240. NOTE: always inlined, because GCC 12 takes a function that only prefetches
// for one without effect. A prefetch of memory that does not exist does not fault.
[[gnu::always_inline]] inline void prefetch_group(const Weights& weights, int64_t group,
                                                  int64_t first) {
  const int64_t bytes = weights.scale_dtype == Dtype::kFloat32 ? 4 : 2;
  const char* scales =
      static_cast<const char*>(weights.scales) + (group * weights.n + first) * bytes;
  for (int64_t at = 0; at < kBlockColumns * bytes; at += 64) __builtin_prefetch(scales + at);
  if (weights.zeros != nullptr) {
    __builtin_prefetch(weights.zeros + (group * weights.n + first) / 8);
  }
}

// Groups between the one asked for and the one in work: about a microsecond at one row.
constexpr int64_t kGroupsAhead = 8;

// Asks for words that are multiplied some steps later. The hardware follows the stream by itself,
// but stops at every 4 KiB page. Measured on Zen 5 with weights in DRAM, one thread, one row of
// activations: 28 GB/s without, 32 with 2 KiB, 35 with 4 KiB, 39 with 8 KiB, which is what reading
// alone reaches.
[[gnu::always_inline]] inline void prefetch_words(const uint32_t* words) {
  constexpr int kDistance = 8192;  // bytes
  const char* ahead = reinterpret_cast<const char*>(words) + kDistance;
  for (int line = 0; line < 4; ++line) __builtin_prefetch(ahead + line * 64);
}

template <class Isa, class Format>
void load_group(const Weights& weights, int64_t group, int64_t first, GroupFacts<Format>& facts) {
  constexpr int kLanes = Isa::kLanes;
  for (int64_t c = 0; c < kBlockColumns; c += kLanes) {
    // n is a multiple of 8, not of the lanes.
    const int64_t columns = weights.n - (first + c);
    Isa::store(facts.scales + c,
               Isa::load_floats(weights.scales, weights.scale_dtype, group * weights.n + first + c,
                                columns < 0 ? 0 : columns));
  }
  if (weights.zeros == nullptr) return;
  const uint32_t* words = weights.zeros + (group * weights.n + first) / 8;
  for (int64_t c = 0; c < kBlockColumns; ++c) {
    const uint32_t word = first + c < weights.n ? words[c / 8] : 0u;
    facts.zeros[c] = Format::zero_word(static_cast<int>((word >> (4 * (c % 8))) & 15u));
  }
}

// A unit is what a 32-bit lane holds once opened: two rows of K in 16 bits each, or four in 8.
constexpr int64_t kUnitBytes = 4;

// Where a pass takes its weights from: words of codes, or a strip of opened ones.
template <class Format, int code_bits>
struct Codes {
  static constexpr int kBits = code_bits;
  static constexpr int kSteps = Format::steps(kBits);
  template <int step>
  [[gnu::always_inline]] static auto open(const uint32_t* word) {
    return Format::template open<kBits, step>(word);
  }
};

template <class Format, int code_bits>
struct Strip {
  static constexpr int kBits = code_bits;
  static constexpr int kSteps = 1;
  template <int step>
  [[gnu::always_inline]] static auto open(const uint32_t* unit) {
    return Format::load_opened(unit);
  }
};

template <class Isa, class Format, class Source, int rows, int vectors, int step>
[[gnu::always_inline]] inline void multiply_step(const uint32_t* words, const std::byte* a,
                                                 int64_t stride,
                                                 typename Format::Sums (&sums)[rows][vectors]) {
  if constexpr (step < Source::kSteps) {
    typename Format::Opened weight[vectors];
    for (int v = 0; v < vectors; ++v) {
      weight[v] = Source::template open<step>(words + v * Isa::kLanes);
    }
    for (int r = 0; r < rows; ++r) {
      const auto unit = Isa::broadcast(a + r * stride + step * kUnitBytes);
      for (int v = 0; v < vectors; ++v) {
        sums[r][v] = Format::template multiply_add<Source::kBits>(sums[r][v], weight[v], unit);
      }
    }
    multiply_step<Isa, Format, Source, rows, vectors, step + 1>(words, a, stride, sums);
  }
}

// What one pass over one segment needs, whatever its shape.
struct Pass {
  const uint32_t* words;  // of the segment, or the strip
  int64_t count;          // words (or units) along K
  const std::byte* a;     // first row
  int64_t stride;         // bytes between rows
  const int32_t* row_sums;
  const float* row_scales;
  const float* scales;
  const int32_t* zeros;  // null: `common_zero` for every column
  int32_t common_zero;
  bool is_first;
  bool prefetches;
  float* tile;
};

// `rows` rows times `vectors` vectors of columns from column `c` on.
template <class Isa, class Format, class Source, int rows, int vectors>
[[gnu::always_inline]] inline void multiply_columns(const Pass& pass, int64_t c, bool prefetches) {
  typename Format::Sums sums[rows][vectors];
  for (int r = 0; r < rows; ++r) {
    const auto row_sum = Isa::broadcast(pass.row_sums + r);
    if (pass.zeros == nullptr) {
      const auto start = Format::start(Isa::broadcast(&pass.common_zero), row_sum);
      for (int v = 0; v < vectors; ++v) sums[r][v] = start;
    } else {
      for (int v = 0; v < vectors; ++v) {
        sums[r][v] = Format::start(Isa::load(pass.zeros + c + v * Isa::kLanes), row_sum);
      }
    }
  }
  const uint32_t* words = pass.words + c;
  const std::byte* a = pass.a;
  for (int64_t i = 0; i < pass.count; ++i) {
    if (prefetches) prefetch_words(words);
    multiply_step<Isa, Format, Source, rows, vectors, 0>(words, a, pass.stride, sums);
    words += kBlockColumns;
    a += Source::kSteps * kUnitBytes;
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) {
      float* out = pass.tile + r * kBlockColumns + c + v * Isa::kLanes;
      const auto total = pass.is_first ? Isa::zero_floats() : Isa::load(out);
      const auto scale =
          Format::scale(Isa::load(pass.scales + c + v * Isa::kLanes), pass.row_scales + r);
      Isa::store(out, Isa::multiply_add(Format::to_floats(sums[r][v]), scale, total));
    }
  }
}

// All 64 columns, as many vectors at a time as leave room for `rows` rows in the registers.
template <class Isa, class Format, class Source, int rows>
void multiply_rows(const Pass& pass) {
  constexpr int kVectors = Isa::vectors_beside(rows);
  for (int64_t c = 0; c < kBlockColumns; c += kVectors * Isa::kLanes) {
    multiply_columns<Isa, Format, Source, rows, kVectors>(pass, c, pass.prefetches && c == 0);
  }
}

// One function per number of rows.
template <class Isa, class Format, class Source, class Sequence>
struct Passes;
template <class Isa, class Format, class Source, int... i>
struct Passes<Isa, Format, Source, std::integer_sequence<int, i...>> {
  void (*run[sizeof...(i)])(const Pass&) = {multiply_rows<Isa, Format, Source, i + 1>...};
};
template <class Isa, class Format, class Source, class Sequence>
constexpr Passes<Isa, Format, Source, Sequence> kPasses{};

template <class Isa, class Format, class Source>
void run_pass(const Pass& pass, int rows) {
  kPasses<Isa, Format, Source, std::make_integer_sequence<int, Isa::kMaxRows>>.run[rows - 1](pass);
}

// Opens one segment of codes into `strip`: [unit][64 columns].
template <class Isa, class Format, int bits, int step>
[[gnu::always_inline]] inline void open_steps(const uint32_t* words, uint32_t* strip) {
  if constexpr (step < Format::steps(bits)) {
    for (int64_t c = 0; c < kBlockColumns; c += Isa::kLanes) {
      Format::store_opened(strip + step * kBlockColumns + c,
                           Format::template open<bits, step>(words + c));
    }
    open_steps<Isa, Format, bits, step + 1>(words, strip);
  }
}

template <class Isa, class Format, int bits>
void open_segment(const uint32_t* words, int64_t count, uint32_t* strip) {
  for (int64_t i = 0; i < count; ++i) {
    prefetch_words(words);
    open_steps<Isa, Format, bits, 0>(words, strip);
    words += kBlockColumns;
    strip += Format::steps(bits) * kBlockColumns;
  }
}

template <class Isa, class Format, int bits>
void multiply_block(const Weights& weights, int64_t block, const Panels& panels,
                    const RowSlice& rows, float* tile) {
  constexpr int kRowsPerWord = 32 / bits;
  const int64_t segment_words = panels.segment / kRowsPerWord;
  const int64_t first = block * kBlockColumns;
  const uint32_t* words = weights.words + block * (weights.k / kRowsPerWord) * kBlockColumns;

  GroupFacts<Format> facts;
  alignas(kPanelAlignment) uint32_t strip[kMaxSegmentRows / 2 * kBlockColumns];
  for (int64_t group = 0; group < kGroupsAhead; ++group) prefetch_group(weights, group, first);

  Pass pass{};
  pass.stride = panels.segment_bytes;
  pass.scales = facts.scales;
  pass.zeros = weights.zeros == nullptr ? nullptr : facts.zeros;
  pass.common_zero = Format::zero_word(1 << (bits - 1));
  pass.words = rows.decode_once ? strip : words;
  pass.count = rows.decode_once ? segment_words * Format::steps(bits) : segment_words;

  for (int64_t k = 0; k < weights.k; k += panels.segment) {
    if (k % weights.group_size == 0) {
      const int64_t group = k / weights.group_size;
      prefetch_group(weights, group + kGroupsAhead, first);
      load_group<Isa, Format>(weights, group, first, facts);
    }
    if (rows.decode_once) {
      open_segment<Isa, Format, bits>(words, segment_words, strip);
    } else {
      pass.words = words;
      pass.prefetches = true;
    }
    pass.is_first = k == 0;
    for (int64_t r = 0; r < rows.count; r += rows.per_pass) {
      const int64_t at = k / panels.segment * panels.rows + rows.first + r;
      pass.a = panels.values + at * panels.segment_bytes;
      pass.row_sums = panels.sums + at;
      pass.row_scales = panels.scales + at;
      pass.tile = tile + r * kBlockColumns;
      const int64_t left = rows.count - r;
      const int count = left < rows.per_pass ? static_cast<int>(left) : rows.per_pass;
      if (rows.decode_once) {
        run_pass<Isa, Format, Strip<Format, bits>>(pass, count);
      } else {
        run_pass<Isa, Format, Codes<Format, bits>>(pass, count);
      }
      pass.prefetches = false;
    }
    words += segment_words * kBlockColumns;
  }
}

template <class Isa, class Format>
void multiply(const Weights& weights, int64_t block, const Panels& panels, const RowSlice& rows,
              float* tile) {
  if constexpr (Format::kOpensBytes) {
    if (weights.bits == 8)
      return multiply_block<Isa, Format, 8>(weights, block, panels, rows, tile);
  }
  multiply_block<Isa, Format, 4>(weights, block, panels, rows, tile);
}

template <class Isa, class Format>
constexpr Microkernel microkernel(decltype(Microkernel::prepare) prepare) {
  return {Isa::kMaxRows, Format::kOpensBytes, prepare, multiply<Isa, Format>};
}

}  // namespace
}  // namespace marlin::cpu
