// The packed layout, word by word, and its inverse.

#include <cstdint>
#include <vector>

#include "../cpu/prepack.h"
#include "check.h"
#include "guarded.h"

namespace marlin::test {

MARLIN_TEST(a_packed_word_has_even_rows_low_and_odd_rows_high) {
  const std::vector<uint32_t> plain = {0x76543210u, 0, 0, 0, 0, 0, 0, 0x89ABCDEFu};
  std::vector<uint32_t> packed(64, 0xFFFFFFFFu);
  cpu::pack_blocks(plain.data(), 8, 8, 0, 1, packed.data());
  expect(packed[0] == 0x75316420u, "rows 0..7 of column 0, got ", packed[0]);
  expect(packed[7] == 0x8ACE9BDFu, "rows 0..7 of column 7, got ", packed[7]);
  for (size_t c = 8; c < 64; ++c) expect(packed[c] == 0, "padding column ", c, " is zero");
}

MARLIN_TEST(unpacking_is_the_inverse_of_packing) {
  for (const int64_t n : {8, 64, 72, 136}) {
    for (const Flush flush : {Flush::kStart, Flush::kEnd}) {
      const int64_t k = 96;
      const int64_t blocks = (n + 63) / 64;
      Guarded<uint32_t> plain(static_cast<size_t>(n * k / 8), flush);
      Guarded<uint32_t> packed(static_cast<size_t>(blocks * 64 * k / 8), flush);
      Guarded<uint32_t> back(plain.size(), flush);
      for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<uint32_t>(i) * 2654435761u;
      for (int64_t b = 0; b < blocks; ++b) {
        cpu::pack_blocks(plain.data(), n, k, b, b + 1, packed.data());
      }
      cpu::unpack_blocks(packed.data(), n, k, 0, blocks, back.data());
      for (size_t i = 0; i < plain.size(); ++i)
        expect(back[i] == plain[i], "word ", i, " of n ", n);
    }
  }
}

}  // namespace marlin::test
