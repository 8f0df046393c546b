// The algorithm of every microkernel, once: templates over an instruction set (`Isa`, see isa_*.h)
// and a number format (`Format`, see kernel_formats.h). Everything has internal linkage, as
// microkernel.h demands of its includers.
//
// A block of 64 columns lies across the lanes, so that no sum runs across a register. K is walked
// in stretches whose activations share a scale, a stretch in segments whose weights share one:
//   sums[r][c]    = sum over a segment of a[r][k] * (code[k][c] - zero[c])
//   partial[r][c] = sum over the segments of sums[r][c] * (scale of the weights)
//   tile[r][c]   += partial[r][c] * (scale of the activations)
// The zero point is not subtracted from each code. With S the sum of the segment's activations,
// sum a (q - z) = sum a q - z S: the sums start at -z S.
//
// Few rows open the codes in registers, once per pass. For many rows (RowSlice::decode_once) a
// stretch of codes is opened into a strip of memory that stays in the first-level cache, and every
// pass reads the strip. Both do the same operations in the same order, so they give the same bits.
#pragma once

#include <utility>

#include "kernel_formats.h"
#include "microkernel.h"

// The loops over the registers of a tile. Arrays of vectors stay in registers only if every index
// is a constant. Portable C++ has nothing to keep there, and takes a minute to compile unrolled.
#if defined(MARLIN_ROLLED_TILES)
#define MARLIN_UNROLL
#else
#define MARLIN_UNROLL _Pragma("GCC unroll 16")
#endif

namespace marlin::cpu {
namespace {

// Scales as float32 and zero points in the form that Format::start takes, of one group.
struct alignas(kPanelAlignment) GroupFacts {
  float scales[kBlockColumns];
  int32_t zeros[kBlockColumns];
};

// The first column of a block in one group, among the scales.
[[gnu::always_inline]] inline int64_t scale_index(const Weights& weights, int64_t group,
                                                  int64_t block) {
  return group * weights.scale_group_stride + block * weights.scale_block_stride;
}

// Asks for the scales and zero points of one group. Plain ones lie a whole row of
// the scales apart from the next group's, which no hardware prefetcher follows. NOTE: always
// inlined, because GCC 12 takes a function that only prefetches for one without effect. A prefetch
// of memory that does not exist does not fault.
[[gnu::always_inline]] inline void prefetch_group(const Weights& weights, int64_t group,
                                                  int64_t block) {
  const int64_t bytes = weights.scale_dtype == Dtype::kFloat32 ? 4 : 2;
  const int64_t element = scale_index(weights, group, block);
  const char* scales = static_cast<const char*>(weights.scales) + element * bytes;
  for (int64_t at = 0; at < kBlockColumns * bytes; at += 64) __builtin_prefetch(scales + at);
  if (weights.zeros != nullptr) __builtin_prefetch(weights.zeros + element / 8);
}

// Rows of K between the group asked for and the one in work: about a microsecond at one row.
constexpr int64_t kRowsAhead = 1024;

// Asks for words that are multiplied some steps later. The hardware follows the stream by itself,
// but stops at every 4 KiB page. Measured on Zen 5 with weights in DRAM, one thread, one row of
// activations: 28 GB/s without, 32 with 2 KiB, 35 with 4 KiB, 39 with 8 KiB, which is what reading
// alone reaches.
[[gnu::always_inline]] inline void prefetch_words(const uint32_t* words) {
  constexpr int kDistance = 8192;  // bytes
  const char* ahead = reinterpret_cast<const char*>(words) + kDistance;
  for (int line = 0; line < 4; ++line) __builtin_prefetch(ahead + line * 64);
}

// The scales of a block, of which `columns` columns exist: n is a multiple of 8, not of the lanes.
// With constants for the last two arguments nothing is left to decide per vector.
template <class Isa>
[[gnu::always_inline]] inline void load_scales(const void* scales, int64_t element, float* out,
                                               Dtype dtype, int64_t columns) {
  MARLIN_UNROLL
  for (int64_t c = 0; c < kBlockColumns; c += Isa::kLanes) {
    const int64_t left = columns - c;
    Isa::store(out + c, Isa::load_floats(scales, dtype, element + c, left < 0 ? 0 : left));
  }
}

template <class Isa, class Format>
void load_group(const Weights& weights, int64_t group, int64_t block, GroupFacts& facts) {
  const int64_t element = scale_index(weights, group, block);
  const int64_t first = block * kBlockColumns;
  const int64_t columns = weights.n - first;
  const Dtype dtype = weights.scale_dtype;
  if (columns >= kBlockColumns && dtype == Dtype::kFloat16) {
    load_scales<Isa>(weights.scales, element, facts.scales, Dtype::kFloat16, kBlockColumns);
  } else if (columns >= kBlockColumns && dtype == Dtype::kBFloat16) {
    load_scales<Isa>(weights.scales, element, facts.scales, Dtype::kBFloat16, kBlockColumns);
  } else {
    load_scales<Isa>(weights.scales, element, facts.scales, dtype, columns);
  }
  if (weights.zeros == nullptr) return;
  const uint32_t* words = weights.zeros + element / 8;
  for (int64_t c = 0; c < kBlockColumns; ++c) {
    const uint32_t word = first + c < weights.n ? words[c / 8] : 0u;
    facts.zeros[c] = Format::zero_word(static_cast<int>((word >> (4 * (c % 8))) & 15u));
  }
}

// Where a pass takes its weights from: words of codes, or a strip of opened ones.
template <class Format, int code_bits>
struct Codes {
  static constexpr int kBits = code_bits;
  static constexpr int kSteps = Format::steps(kBits);
  static constexpr int64_t kStride = kBlockColumns;
  static constexpr bool kPrefetches = true;
  template <int step>
  [[gnu::always_inline]] static auto open(const uint32_t* word) {
    return Format::template open<kBits, step>(word);
  }
};

template <class Format, int code_bits>
struct Strip {
  static constexpr int kBits = code_bits;
  static constexpr int kSteps = 4;
  static constexpr int64_t kStride = kSteps * kBlockColumns;
  static constexpr bool kPrefetches = false;
  template <int step>
  [[gnu::always_inline]] static auto open(const uint32_t* unit) {
    return Format::load_opened(unit + step * kBlockColumns);
  }
};

template <class Isa, class Format, class Source, int rows, int vectors, int step>
[[gnu::always_inline]] inline void multiply_step(const uint32_t* words, const std::byte* a,
                                                 typename Format::Sums (&sums)[rows][vectors]) {
  if constexpr (step < Source::kSteps) {
    if constexpr (rows == 1) {  // needs no weight twice, and may have no register for all of them
      const auto unit = Format::template load_unit<step>(a);
      MARLIN_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const auto weight = Source::template open<step>(words + v * Isa::kLanes);
        sums[0][v] = Format::template multiply_add<Source::kBits>(sums[0][v], weight, unit);
      }
    } else {
      constexpr int64_t kStride = panel_stride<Format>;
      typename Format::Opened weight[vectors];
      MARLIN_UNROLL
      for (int v = 0; v < vectors; ++v) {
        weight[v] = Source::template open<step>(words + v * Isa::kLanes);
      }
      MARLIN_UNROLL
      for (int r = 0; r < rows; ++r) {
        const auto unit = Format::template load_unit<step>(a + r * kStride);
        MARLIN_UNROLL
        for (int v = 0; v < vectors; ++v) {
          sums[r][v] = Format::template multiply_add<Source::kBits>(sums[r][v], weight[v], unit);
        }
      }
    }
    multiply_step<Isa, Format, Source, rows, vectors, step + 1>(words, a, sums);
  }
}

// Where a walk along K stands.
struct Cursor {
  const uint32_t* words;
  const std::byte* a;  // first row
  bool prefetches;
};

// Multiplies `count` words along K, or steps of the strip, and moves on to the next.
template <class Isa, class Format, class Source, int rows, int vectors>
[[gnu::always_inline]] inline void multiply_words(int64_t count, Cursor& at,
                                                  typename Format::Sums (&sums)[rows][vectors]) {
  for (int64_t i = count; i > 0; --i) {
    if constexpr (Source::kPrefetches) {
      if (at.prefetches) prefetch_words(at.words);
    }
    multiply_step<Isa, Format, Source, rows, vectors, 0>(at.words, at.a, sums);
    at.words += Source::kStride;
    at.a += Source::kSteps * Format::kUnitBytes;
  }
}

template <class Format, int bits>
constexpr bool kSumsParts =
    requires(typename Format::Sums sums) { Format::template add_part<bits>(sums, sums); };

constexpr int64_t kMaxSegments = kPanelRows / kGroupMultiple;  // of a stretch

// What one pass over one stretch needs, whatever its shape.
struct Pass {
  const uint32_t* words;  // of the stretch, or the strip
  int64_t segments;       // of the stretch
  int64_t count;          // words along K of a segment, or steps of the strip
  const std::byte* a;     // first row
  const int32_t* row_sums;
  int64_t row_sums_stride;  // from a segment to the next
  const float* row_scales;
  const GroupFacts* facts[kMaxSegments];  // per segment
  bool has_zeros;                         // else the codes are symmetric
  bool is_first;
  bool prefetches;
  float* tile;
};

// The sums of `rows` rows times `vectors` vectors of columns, from column `c` on, over a segment.
template <class Isa, class Format, class Source, int rows, int vectors>
[[gnu::always_inline]] inline void sum_segment(const Pass& pass, int64_t segment, int64_t c,
                                               typename Format::Sums (&sums)[rows][vectors]) {
  const int32_t* row_sums = pass.row_sums + segment * pass.row_sums_stride;
  if (pass.has_zeros) {
    const int32_t* zeros = pass.facts[segment]->zeros + c;
    MARLIN_UNROLL
    for (int r = 0; r < rows; ++r) {
      const auto row_sum = Isa::broadcast(row_sums + r);
      MARLIN_UNROLL
      for (int v = 0; v < vectors; ++v) {
        sums[r][v] = Format::start(Isa::load(zeros + v * Isa::kLanes), row_sum);
      }
    }
  } else {
    MARLIN_UNROLL
    for (int r = 0; r < rows; ++r) {
      const auto start = Format::start_at_middle(row_sums + r);
      MARLIN_UNROLL
      for (int v = 0; v < vectors; ++v) sums[r][v] = start;
    }
  }
  Cursor at = {pass.words + segment * pass.count * Source::kStride + c,
               pass.a + segment * pass.count * Source::kSteps * Format::kUnitBytes,
               pass.prefetches && c == 0};
  if constexpr (kSumsParts<Format, Source::kBits>) {
    constexpr int64_t kRows = Source::kSteps * (Format::kUnitBytes / Format::kBytes);
    constexpr int64_t kCount = Format::kPartRows / kRows;
    for (int64_t left = pass.count; left > 0; left -= kCount) {
      typename Format::Sums part[rows][vectors];
      MARLIN_UNROLL
      for (int r = 0; r < rows; ++r) {
        MARLIN_UNROLL
        for (int v = 0; v < vectors; ++v) part[r][v] = Isa::zero_ints();
      }
      multiply_words<Isa, Format, Source>(kCount, at, part);
      MARLIN_UNROLL
      for (int r = 0; r < rows; ++r) {
        MARLIN_UNROLL
        for (int v = 0; v < vectors; ++v) {
          sums[r][v] = Format::template add_part<Source::kBits>(sums[r][v], part[r][v]);
        }
      }
    }
  } else {
    multiply_words<Isa, Format, Source>(pass.count, at, sums);
  }
}

// A stretch of one segment: the sums are all that has to be in registers. NOTE: what the last loop
// uses is copied from `pass` first: vectors may alias anything, so that every store would make it
// be read again.
template <class Isa, class Format, class Source, int rows, int vectors>
[[gnu::always_inline]] inline void multiply_one(const Pass& pass, int64_t c) {
  typename Format::Sums sums[rows][vectors];
  sum_segment<Isa, Format, Source>(pass, 0, c, sums);
  typename Isa::Floats scales[vectors];
  MARLIN_UNROLL
  for (int v = 0; v < vectors; ++v)
    scales[v] = Isa::load(pass.facts[0]->scales + c + v * Isa::kLanes);
  const float* row_scales = pass.row_scales;
  float* tile = pass.tile + c;
  const bool is_first = pass.is_first;
  MARLIN_UNROLL
  for (int r = 0; r < rows; ++r) {
    MARLIN_UNROLL
    for (int v = 0; v < vectors; ++v) {
      float* out = tile + r * kBlockColumns + v * Isa::kLanes;
      const auto total = is_first ? Isa::zero_floats() : Isa::load(out);
      Isa::store(out, Format::add_stretch(total, sums[r][v], scales[v], row_scales + r));
    }
  }
}

// A stretch of several segments: the partial results are in registers, too, so fewer rows fit; what
// finds none waits in memory while a segment is summed.
template <class Isa, class Format, class Source, int rows, int vectors>
[[gnu::always_inline]] inline void multiply_several(const Pass& pass, int64_t c) {
  typename Isa::Floats partial[rows][vectors];
  MARLIN_UNROLL
  for (int r = 0; r < rows; ++r) {
    MARLIN_UNROLL
    for (int v = 0; v < vectors; ++v) {
      partial[r][v] = Isa::zero_floats();
      if (Format::kHasRowScales || pass.is_first) continue;
      partial[r][v] = Isa::load(pass.tile + c + r * kBlockColumns + v * Isa::kLanes);
    }
  }
  for (int64_t segment = 0; segment < pass.segments; ++segment) {
    typename Format::Sums sums[rows][vectors];
    sum_segment<Isa, Format, Source>(pass, segment, c, sums);
    MARLIN_UNROLL
    for (int v = 0; v < vectors; ++v) {
      const auto scale = Isa::load(pass.facts[segment]->scales + c + v * Isa::kLanes);
      MARLIN_UNROLL
      for (int r = 0; r < rows; ++r) {
        partial[r][v] = Isa::multiply_add(Format::to_floats(sums[r][v]), scale, partial[r][v]);
      }
    }
  }
  const float* row_scales = pass.row_scales;
  float* tile = pass.tile + c;
  const bool is_first = pass.is_first;
  MARLIN_UNROLL
  for (int r = 0; r < rows; ++r) {
    MARLIN_UNROLL
    for (int v = 0; v < vectors; ++v) {
      float* out = tile + r * kBlockColumns + v * Isa::kLanes;
      if constexpr (Format::kHasRowScales) {
        const auto total = is_first ? Isa::zero_floats() : Isa::load(out);
        partial[r][v] = Isa::multiply_add(partial[r][v], Isa::broadcast(row_scales + r), total);
      }
      Isa::store(out, partial[r][v]);
    }
  }
}

// All 64 columns, as many vectors at a time as leave room for `rows` rows in the registers.
template <class Isa, class Format, class Source, int rows>
void multiply_rows(const Pass& pass) {
  if (pass.segments == 1) {
    constexpr int kVectors = Isa::vectors_beside(rows);
    for (int64_t c = 0; c < kBlockColumns; c += kVectors * Isa::kLanes) {
      multiply_one<Isa, Format, Source, rows, kVectors>(pass, c);
    }
    return;
  }
  if constexpr (rows <= Isa::kMaxRowsOfSeveral) {
    constexpr int kVectors = Isa::vectors_of_several(rows);
    for (int64_t c = 0; c < kBlockColumns; c += kVectors * Isa::kLanes) {
      multiply_several<Isa, Format, Source, rows, kVectors>(pass, c);
    }
  }
}

// One function per number of rows.
template <class Isa, class Format, class Source, class Sequence>
struct Passes;
template <class Isa, class Format, class Source, int... i>
struct Passes<Isa, Format, Source, std::integer_sequence<int, i...>> {
  void (*run[sizeof...(i)])(const Pass&) = {multiply_rows<Isa, Format, Source, i + 1>...};
};
template <class Isa, class Format, class Source>
constexpr Passes<Isa, Format, Source, std::make_integer_sequence<int, Isa::kMaxRows>> kPasses{};

// Opens `count` words along K into `strip`: [unit][64 columns].
template <class Isa, class Format, int bits, int step>
[[gnu::always_inline]] inline void open_steps(const uint32_t* words, uint32_t* strip) {
  if constexpr (step < Format::steps(bits)) {
    MARLIN_UNROLL
    for (int64_t c = 0; c < kBlockColumns; c += Isa::kLanes) {
      Format::store_opened(strip + step * kBlockColumns + c,
                           Format::template open<bits, step>(words + c));
    }
    open_steps<Isa, Format, bits, step + 1>(words, strip);
  }
}

template <class Isa, class Format, int bits>
void open_codes(const uint32_t* words, int64_t count, uint32_t* strip) {
  for (int64_t i = 0; i < count; ++i) {
    prefetch_words(words);
    open_steps<Isa, Format, bits, 0>(words, strip);
    words += kBlockColumns;
    strip += Format::steps(bits) * kBlockColumns;
  }
}

// The passes of one slice of rows over one stretch of K.
template <class Format, class Source, class Table>
void run_passes(const Table& table, Pass& pass, const Panels& panels, const RowSlice& rows,
                int64_t k, float* tile) {
  const int64_t stretch = k / panels.stretch;
  const int64_t first_segment = k / panels.segment;
  for (int64_t r = 0; r < rows.count; r += rows.per_pass) {
    const int64_t row = rows.first + r;
    pass.a = panel_at<Format>(panels, k, row);
    pass.row_sums = panels.sums + first_segment * panels.rows + row;
    pass.row_scales = panels.scales + stretch * panels.rows + row;
    pass.tile = tile + r * kBlockColumns;
    const int64_t left = rows.count - r;
    table.run[(left < rows.per_pass ? left : rows.per_pass) - 1](pass);
    pass.prefetches = false;
  }
}

// The facts of the groups of one block that a walk along K has at hand.
template <class Isa, class Format>
class GroupWindow {
 public:
  GroupWindow(const Weights& weights, int64_t block)
      : weights_(weights),
        block_(block),
        groups_(weights.k / weights.group_size),
        ahead_(kRowsAhead < weights.group_size ? 1 : kRowsAhead / weights.group_size) {}

  // Points `facts` at those of the segments from row k on, where the last move ended or the walk
  // begins; they are valid until the next move.
  void move_to(int64_t k, int64_t segments, int64_t segment_rows,
               const GroupFacts* (&facts)[kMaxSegments]) {
    for (int64_t s = 0; s < segments; ++s) {
      const bool is_new = k + s * segment_rows == end_;
      if (is_new) {
        ++group_;
        end_ += weights_.group_size;
      }
      GroupFacts& slot = slots_[group_ % kMaxSegments];
      facts[s] = &slot;
      if (!is_new) continue;
      load_group<Isa, Format>(weights_, group_, block_, slot);
      // Towards the end those of the next block, which the same task takes next.
      const int64_t next = group_ + ahead_;
      prefetch_group(weights_, next < groups_ ? next : next - groups_,
                     next < groups_ ? block_ : block_ + 1);
    }
  }

 private:
  const Weights& weights_;
  int64_t block_;
  int64_t groups_;
  int64_t ahead_;
  int64_t group_ = -1;              // the one in work, and
  int64_t end_ = 0;                 // the row of K where it ends
  GroupFacts slots_[kMaxSegments];  // by group modulo their number: a stretch touches no more
};

template <class Isa, class Format, int bits>
void multiply_block(const Weights& weights, int64_t block, const Panels& panels,
                    const RowSlice& rows, float* tile) {
  using InRegisters = Codes<Format, bits>;
  using Opened = Strip<Format, bits>;
  constexpr int kRowsPerWord = 32 / bits;
  constexpr int kRowsPerUnit = static_cast<int>(Format::kUnitBytes / Format::kBytes);
  const uint32_t* words = weights.words + block * (weights.k / kRowsPerWord) * kBlockColumns;
  GroupWindow<Isa, Format> window(weights, block);
  alignas(kPanelAlignment) uint32_t strip[kPanelRows / kRowsPerUnit * kBlockColumns];
  Pass pass;
  pass.row_sums_stride = panels.rows;
  pass.has_zeros = weights.zeros != nullptr;
  pass.count = panels.segment / (rows.decode_once ? kRowsPerUnit * Opened::kSteps : kRowsPerWord);

  for (int64_t k = 0; k < weights.k; k += panels.stretch) {
    const int64_t end = weights.k - k < panels.stretch ? weights.k : k + panels.stretch;
    pass.segments = (end - k) / panels.segment;
    window.move_to(k, pass.segments, panels.segment, pass.facts);
    pass.is_first = k == 0;
    pass.prefetches = !rows.decode_once;
    if (rows.decode_once) {
      open_codes<Isa, Format, bits>(words, (end - k) / kRowsPerWord, strip);
      pass.words = strip;
      run_passes<Format, Opened>(kPasses<Isa, Format, Opened>, pass, panels, rows, k, tile);
    } else {
      pass.words = words;
      run_passes<Format, InRegisters>(kPasses<Isa, Format, InRegisters>, pass, panels, rows, k,
                                      tile);
    }
    words += (end - k) / kRowsPerWord * kBlockColumns;
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
constexpr Microkernel microkernel(decltype(Microkernel::prepare) prepare,
                                  int64_t decode_once_rows = kNeverDecodeOnce,
                                  int64_t decode_once_rows_of_several = kNeverDecodeOnce) {
  return {
      {{Isa::kMaxRows, Isa::kMaxRows, decode_once_rows},
       {Isa::kMaxRowsOfSeveral, Isa::kManyRowsOfSeveral, decode_once_rows_of_several}},
      Format::kOpensBytes,
      prepare,
      multiply<Isa, Format>,
  };
}

}  // namespace
}  // namespace marlin::cpu
