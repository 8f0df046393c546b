// Where the elements of mma.sync lie in the registers of a warp, and its sums of integers.
//
// Of A and B a lane holds words of 32 bits along k. Four neighbouring lanes hold 128 neighbouring
// bits of a row (of A) or a column (of B), eight such fours the rows g = 0 .. 7. The next register
// is rows g + 8, where there are any, then the next 128 bits.

#include "tensor_core.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "floats.h"
#include "tensor_sum.h"

namespace ptx {
namespace {

constexpr int kLanes = 32;
constexpr int kLanesOfRow = 4;
constexpr int kRowsOfRegister = 8;
constexpr int kColumns = 8;
constexpr int kMaxRows = 16;
constexpr int kMaxK = 64;

using Row = uint32_t[kMaxK];
using IntegerRow = int32_t[kMaxK];

int bits_of(Element element) {
  switch (element) {
    case Element::kS4:
    case Element::kU4:
      return 4;
    case Element::kS8:
    case Element::kU8:
      return 8;
    case Element::kF16:
    case Element::kBf16:
      return 16;
    default:
      return 32;
  }
}

bool is_integer(Element element) {
  return element == Element::kS8 || element == Element::kU8 || element == Element::kS4 ||
         element == Element::kU4;
}

bool is_float(Element element) { return element == Element::kF32 || element == Element::kF16; }

int registers_of(Element element, int rows, int columns) {
  return rows * columns * bits_of(element) / (32 * kLanes);
}

// The rows of A, or the columns of B.
void read_operand(const Fragment& fragment, Element element, int rows, int k, Row* out) {
  const int bits = bits_of(element);
  const int per_word = 32 / bits;
  const uint32_t mask = bits == 32 ? ~0u : (1u << bits) - 1;
  const int row_registers = rows / kRowsOfRegister;
  const int registers = registers_of(element, rows, k);
  for (int r = 0; r < registers; ++r) {
    const int first_row = r % row_registers * kRowsOfRegister;
    const int first_k = r / row_registers * kLanesOfRow * per_word;
    for (int lane = 0; lane < kLanes; ++lane) {
      uint32_t* to = out[first_row + lane / kLanesOfRow] + first_k + lane % kLanesOfRow * per_word;
      for (int i = 0; i < per_word; ++i) to[i] = (fragment[r][lane] >> (i * bits)) & mask;
    }
  }
}

// Of C and D a lane holds two neighbouring columns: in one register if they are float16, else in
// two.
struct Place {
  int reg;
  int lane;
  int shift;
};

Place place_of(Element element, int row, int column) {
  const int pair = row / kRowsOfRegister;
  const int lane = row % kRowsOfRegister * kLanesOfRow + column / 2;
  return element == Element::kF16 ? Place{pair, lane, column % 2 * 16}
                                  : Place{pair * 2 + column % 2, lane, 0};
}

float read_float(const Fragment& c, Element element, int row, int column) {
  const Place place = place_of(element, row, column);
  const uint32_t bits = c[place.reg][place.lane] >> place.shift;
  return element == Element::kF16 ? widen(Half::kF16, static_cast<uint16_t>(bits))
                                  : std::bit_cast<float>(bits);
}

void multiply_floats(const Mma& mma, Generation generation, const Row* rows, const Row* columns,
                     const Fragment& c, Fragment& out) {
  Terms b[kColumns];
  FixedTerms fixed_b[kColumns];
  const bool is_exact = generation == Generation::kExact;
  for (int j = 0; j < kColumns; ++j) {
    b[j] = take_apart(mma.b, columns[j], mma.k);
    if (is_exact) fixed_b[j] = to_fixed(b[j]);
  }
  for (int i = 0; i < mma.m; ++i) {
    const Terms a = take_apart(mma.a, rows[i], mma.k);
    const FixedTerms fixed_a = is_exact ? to_fixed(a) : FixedTerms{};
    for (int j = 0; j < kColumns; ++j) {
      const float start = read_float(c, mma.c, i, j);
      const uint32_t sum = is_exact ? exact_sum(mma.d, a, fixed_a, b[j], fixed_b[j], start)
                                    : block_sum(generation, mma.d, a, b[j], start);
      const Place place = place_of(mma.d, i, j);
      out[place.reg][place.lane] |= sum << place.shift;
    }
  }
}

// The integers of an operand, with their signs.
void extend_signs(Element element, int rows, int k, const Row* bits, IntegerRow* out) {
  const int unused = 32 - bits_of(element);
  const bool is_signed = element == Element::kS8 || element == Element::kS4;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < k; ++j) {
      const uint32_t top = bits[i][j] << unused;
      out[i][j] =
          is_signed ? static_cast<int32_t>(top) >> unused : static_cast<int32_t>(top >> unused);
    }
  }
}

void multiply_integers(const Mma& mma, const Row* rows, const Row* columns, const Fragment& c,
                       Fragment& out) {
  using Limits = std::numeric_limits<int32_t>;
  IntegerRow a[kMaxRows];
  IntegerRow b[kColumns];
  extend_signs(mma.a, mma.m, mma.k, rows, a);
  extend_signs(mma.b, kColumns, mma.k, columns, b);
  for (int i = 0; i < mma.m; ++i) {
    for (int j = 0; j < kColumns; ++j) {
      int32_t products = 0;  // at most 32 of 8 bits: below 2^21
      for (int k = 0; k < mma.k; ++k) products += a[i][k] * b[j][k];
      const Place place = place_of(mma.d, i, j);
      int64_t sum = int64_t{static_cast<int32_t>(c[place.reg][place.lane])} + products;
      if (mma.saturates) sum = std::clamp<int64_t>(sum, Limits::min(), Limits::max());
      out[place.reg][place.lane] = static_cast<uint32_t>(sum);
    }
  }
}

}  // namespace

bool is_known(const Mma& mma) {
  const auto has_shape = [&mma](int m, int k) { return mma.m == m && mma.k == k; };
  if (mma.n != kColumns || bits_of(mma.a) != bits_of(mma.b)) return false;
  if (is_integer(mma.a)) {
    const int word = 128 / bits_of(mma.a);  // of a register, along k
    return is_integer(mma.b) && mma.c == Element::kS32 && mma.d == Element::kS32 &&
           (has_shape(8, word) || has_shape(16, word) || has_shape(16, 2 * word));
  }
  if (mma.a != mma.b || mma.saturates || !is_float(mma.c) || !is_float(mma.d)) return false;
  const bool has_float_sums = mma.c == Element::kF32 && mma.d == Element::kF32;
  switch (mma.a) {
    case Element::kF16:
      return has_shape(16, 16) || (has_shape(16, 8) && mma.c == mma.d);
    case Element::kBf16:
      return has_float_sums && (has_shape(16, 8) || has_shape(16, 16));
    case Element::kTf32:
      return has_float_sums && (has_shape(16, 4) || has_shape(16, 8));
    default:
      return false;
  }
}

int registers_of_a(const Mma& mma) { return registers_of(mma.a, mma.m, mma.k); }
int registers_of_b(const Mma& mma) { return registers_of(mma.b, mma.n, mma.k); }
int registers_of_c(const Mma& mma) { return registers_of(mma.c, mma.m, mma.n); }
int registers_of_d(const Mma& mma) { return registers_of(mma.d, mma.m, mma.n); }

void multiply(const Mma& mma, Generation generation, const Fragment& a, const Fragment& b,
              const Fragment& c, Fragment& d) {
  Row rows[kMaxRows];
  Row columns[kColumns];
  read_operand(a, mma.a, mma.m, mma.k, rows);
  read_operand(b, mma.b, mma.n, mma.k, columns);
  Fragment out = {};
  if (is_integer(mma.a)) {
    multiply_integers(mma, rows, columns, c, out);
  } else {
    multiply_floats(mma, generation, rows, columns, c, out);
  }
  std::memcpy(d, out, static_cast<size_t>(registers_of_d(mma)) * sizeof(out[0]));
}

float dot(Generation generation, Element format, const uint16_t* a, const uint16_t* b, int k,
          float c) {
  for (int first = 0; first < k; first += kMaxTerms) {
    const int count = std::min(k - first, kMaxTerms);
    uint32_t row[kMaxTerms];
    uint32_t column[kMaxTerms];
    std::copy_n(a + first, count, row);
    std::copy_n(b + first, count, column);
    const Terms left = take_apart(format, row, count);
    const Terms right = take_apart(format, column, count);
    const uint32_t bits =
        generation == Generation::kExact
            ? exact_sum(Element::kF32, left, to_fixed(left), right, to_fixed(right), c)
            : block_sum(generation, Element::kF32, left, right, c);
    c = std::bit_cast<float>(bits);
  }
  return c;
}

}  // namespace ptx
