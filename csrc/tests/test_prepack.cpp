// The packed layout, word by word, and its inverse.

#include <cstdint>

#include "../cpu/prepack.h"
#include "check.h"
#include "guarded.h"

namespace marlin::test {
namespace {

// Row i of a packed word, by the definition in weights.h.
uint32_t packed_code(uint32_t word, int64_t i, int bits) {
  constexpr int kByteOfRow[] = {0, 2, 1, 3};
  const int shift = bits == 4 ? static_cast<int>(4 * (i / 2) + 16 * (i % 2)) : 8 * kByteOfRow[i];
  return (word >> shift) & ((1u << bits) - 1u);
}

void check(int64_t n, int64_t k, int bits, Flush flush) {
  const int64_t per_word = 32 / bits;
  const int64_t rows = k / per_word;
  const int64_t blocks = (n + 63) / 64;
  const cpu::PlainShape shape = {n, k, bits};
  Guarded<uint32_t> plain(n * rows, flush);
  Guarded<uint32_t> packed(blocks * 64 * rows, flush);
  for (int64_t i = 0; i < plain.size(); ++i) {
    plain[i] = static_cast<uint32_t>(i + 1) * 2654435761u;
  }
  for (int64_t b = 0; b < blocks; ++b)
    cpu::pack_blocks(plain.data(), shape, b, b + 1, packed.data());
  for (int64_t column = 0; column < blocks * 64; ++column) {
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t word = packed[(column / 64 * rows + r) * 64 + column % 64];
      for (int64_t i = 0; i < per_word; ++i) {
        const uint32_t code =
            column < n ? (plain[r * n + column] >> (bits * i)) & ((1u << bits) - 1u) : 0u;
        expect(packed_code(word, i, bits) == code, bits, " bits, n ", n, ": row ", r * per_word + i,
               " of column ", column, " is not ", code);
      }
    }
  }
  Guarded<uint32_t> back(plain.size(), flush);
  cpu::unpack_blocks(packed.data(), shape, 0, blocks, back.data());
  expect(back.same_bytes(plain), bits, " bits, n ", n, ": unpacked is not what was packed");
}

}  // namespace

MARLIN_TEST(packed_words_are_as_defined_and_unpack_to_the_plain_ones) {
  for (const int bits : {4, 8}) {
    for (const int64_t n : {8, 64, 72, 136}) {
      for (const Flush flush : kFlushes) check(n, 96, bits, flush);
    }
  }
}

MARLIN_TEST(a_packed_word_has_even_rows_low_and_odd_rows_high) {
  const uint32_t nibbles[] = {0x76543210u, 0, 0, 0, 0, 0, 0, 0x89ABCDEFu};
  const uint32_t bytes[] = {0x33221100u, 0, 0, 0, 0, 0, 0, 0x89ABCDEFu};
  uint32_t packed[64];
  cpu::pack_blocks(nibbles, {8, 8, 4}, 0, 1, packed);
  expect(packed[0] == 0x75316420u && packed[7] == 0x8ACE9BDFu, "4 bits, got ", packed[0]);
  cpu::pack_blocks(bytes, {8, 4, 8}, 0, 1, packed);
  expect(packed[0] == 0x33112200u && packed[7] == 0x89CDABEFu, "8 bits, got ", packed[0]);
}

MARLIN_TEST(packing_writes_only_its_blocks) {
  const Guarded<uint32_t> plain(200 * 8, Flush::kEnd);
  Guarded<uint32_t> packed(4 * 64 * 8, Flush::kEnd);
  packed.poison(0);
  cpu::pack_blocks(plain.data(), {200, 64, 4}, 1, 2, packed.data());
  for (int64_t i = 0; i < packed.size(); ++i) {
    const bool is_own = i / (64 * 8) == 1;
    expect(packed[i] == (is_own ? 0xFFFFFFFFu : 0u), "word ", i);
  }
}

}  // namespace marlin::test
