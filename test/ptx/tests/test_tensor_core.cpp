// Fragments against the formulas of the PTX manual, and sums of integers.

#include <algorithm>
#include <bit>
#include <random>
#include <vector>

#include "../src/floats.h"
#include "../src/tensor_core.h"
#include "check.h"

namespace ptx::test {
namespace {

constexpr Generation kGenerations[] = {Generation::kExact, Generation::kAmpere,
                                       Generation::kHopper};

// Row and column of element i of a lane, as the manual gives them: `g` is its groupID, the lane /
// 4, `t` its threadID_in_group, the lane % 4.
struct Position {
  int row;
  int column;
};
using Formula = Position (*)(int i, int g, int t);

struct Shape {
  int m, k;
  int bits;
  int a_elements, b_elements;
  Formula a;
  Formula b;  // row is the one along k
};

const Shape kShapes[] = {
    {16, 8, 16, 4, 2,
     [](int i, int g, int t) { return Position{i < 2 ? g : g + 8, t * 2 + (i & 1)}; },
     [](int i, int g, int t) { return Position{t * 2 + i, g}; }},
    {16, 16, 16, 8, 4,
     [](int i, int g, int t) {
       const bool is_upper = (i >= 0 && i < 2) || (i >= 4 && i < 6);
       return Position{is_upper ? g : g + 8, i < 4 ? t * 2 + (i & 1) : t * 2 + (i & 1) + 8};
     },
     [](int i, int g, int t) {
       return Position{i < 2 ? t * 2 + (i & 1) : t * 2 + (i & 1) + 8, g};
     }},
    {16, 4, 32, 2, 1, [](int i, int g, int t) { return Position{i == 0 ? g : g + 8, t}; },
     [](int, int g, int t) { return Position{t, g}; }},
    {16, 8, 32, 4, 2,
     [](int i, int g, int t) {
       return Position{i == 0 || i == 2 ? g : g + 8, i == 0 || i == 1 ? t : t + 4};
     },
     [](int i, int g, int t) { return Position{i == 0 ? t : t + 4, g}; }},
    {8, 16, 8, 4, 4, [](int i, int g, int t) { return Position{g, t * 4 + i}; },
     [](int i, int g, int t) { return Position{t * 4 + i, g}; }},
    {16, 16, 8, 8, 4,
     [](int i, int g, int t) { return Position{i < 4 ? g : g + 8, t * 4 + (i & 3)}; },
     [](int i, int g, int t) { return Position{t * 4 + i, g}; }},
    {16, 32, 8, 16, 8,
     [](int i, int g, int t) {
       const bool is_upper = (i >= 0 && i < 4) || (i >= 8 && i < 12);
       return Position{is_upper ? g : g + 8, i < 8 ? t * 4 + (i & 3) : t * 4 + (i & 3) + 16};
     },
     [](int i, int g, int t) {
       return Position{i < 4 ? t * 4 + (i & 3) : t * 4 + (i & 3) + 16, g};
     }},
    {8, 32, 4, 8, 8, [](int i, int g, int t) { return Position{g, t * 8 + i}; },
     [](int i, int g, int t) { return Position{t * 8 + i, g}; }},
    {16, 32, 4, 16, 8,
     [](int i, int g, int t) { return Position{i < 8 ? g : g + 8, t * 8 + (i & 7)}; },
     [](int i, int g, int t) { return Position{t * 8 + i, g}; }},
    {16, 64, 4, 32, 16,
     [](int i, int g, int t) {
       const bool is_upper = (i >= 0 && i < 8) || (i >= 16 && i < 24);
       return Position{is_upper ? g : g + 8, i < 16 ? t * 8 + (i & 7) : t * 8 + (i & 7) + 32};
     },
     [](int i, int g, int t) {
       return Position{i < 8 ? t * 8 + (i & 7) : t * 8 + (i & 7) + 32, g};
     }},
};

const Shape& shape_of(int m, int k, int bits) {
  return *std::find_if(std::begin(kShapes), std::end(kShapes), [=](const Shape& shape) {
    return shape.m == m && shape.k == k && shape.bits == bits;
  });
}

Position position_of_c(int m, int i, int g, int t) {
  return {m == 8 || i < 2 ? g : g + 8, t * 2 + (i & 1)};
}

uint32_t bits_of(Element element, int value) {
  const auto number = static_cast<float>(value);
  const auto bits = static_cast<uint32_t>(value);
  switch (element) {
    case Element::kF16:
      return narrow(Half::kF16, number, {});
    case Element::kBf16:
      return narrow(Half::kBf16, number, {});
    case Element::kTf32:
    case Element::kF32:
      return std::bit_cast<uint32_t>(number);
    case Element::kS8:
    case Element::kU8:
      return bits & 0xFF;
    case Element::kS4:
    case Element::kU4:
      return bits & 0xF;
    case Element::kS32:
      return bits;
  }
  return 0;
}

void put(Fragment& fragment, int lane, int i, int bits, uint32_t value) {
  const int per_register = 32 / bits;
  fragment[i / per_register][lane] |= value << (i % per_register * bits);
}

uint32_t get(const Fragment& fragment, int lane, int i, int bits) {
  const int per_register = 32 / bits;
  const uint32_t shifted = fragment[i / per_register][lane] >> (i % per_register * bits);
  return bits == 32 ? shifted : shifted & ((1u << bits) - 1);
}

int width(Element element) { return element == Element::kF16 ? 16 : 32; }  // of C and D

int smallest(Element element) {
  const bool is_unsigned = element == Element::kU8 || element == Element::kU4;
  return is_unsigned ? 0 : -8;
}

int largest(Element element) {
  if (element == Element::kU8) return 255;
  return element == Element::kU4 ? 15 : 7;
}

// Random small integers in all places, through fragments and in a plain loop.
void check_layout(const Mma& mma, int bits, Generation generation, bool in_place) {
  std::mt19937 random(1);
  const Shape& shape = shape_of(mma.m, mma.k, bits);
  const auto draw = [&random](Element element) {
    return std::uniform_int_distribution<int>(smallest(element), largest(element))(random);
  };
  int left[16][64];
  int right[64][8];
  int start[16][8];
  Fragment a = {};
  Fragment b = {};
  Fragment c = {};
  for (int i = 0; i < mma.m; ++i) {
    for (int k = 0; k < mma.k; ++k) left[i][k] = draw(mma.a);
    for (int j = 0; j < 8; ++j) start[i][j] = draw(mma.c);
  }
  for (int k = 0; k < mma.k; ++k) {
    for (int j = 0; j < 8; ++j) right[k][j] = draw(mma.b);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4;
    const int t = lane % 4;
    for (int i = 0; i < shape.a_elements; ++i) {
      const Position at = shape.a(i, g, t);
      put(a, lane, i, bits, bits_of(mma.a, left[at.row][at.column]));
    }
    for (int i = 0; i < shape.b_elements; ++i) {
      const Position at = shape.b(i, g, t);
      put(b, lane, i, bits, bits_of(mma.b, right[at.row][at.column]));
    }
    for (int i = 0; i < mma.m / 4; ++i) {
      const Position at = position_of_c(mma.m, i, g, t);
      put(c, lane, i, width(mma.c), bits_of(mma.c, start[at.row][at.column]));
    }
  }
  Fragment apart = {};
  Fragment& d = in_place ? c : apart;
  multiply(mma, generation, a, b, c, d);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < mma.m / 4; ++i) {
      const Position at = position_of_c(mma.m, i, lane / 4, lane % 4);
      int sum = start[at.row][at.column];
      for (int k = 0; k < mma.k; ++k) sum += left[at.row][k] * right[k][at.column];
      expect(get(d, lane, i, width(mma.d)) == bits_of(mma.d, sum), "m", mma.m, "k", mma.k, " of ",
             bits, " bits, types ", static_cast<int>(mma.a), " ", static_cast<int>(mma.b), " into ",
             static_cast<int>(mma.d), ": row ", at.row, " column ", at.column);
    }
  }
  expect(registers_of_a(mma) * 32 == shape.a_elements * bits, "registers of a");
  expect(registers_of_b(mma) * 32 == shape.b_elements * bits, "registers of b");
  expect(registers_of_c(mma) == mma.m / 4 * width(mma.c) / 32, "registers of c");
  expect(registers_of_d(mma) == mma.m / 4 * width(mma.d) / 32, "registers of d");
}

uint16_t random_number(std::mt19937& random) {
  return narrow(Half::kBf16, std::uniform_real_distribution<float>(-2, 2)(random), {});
}

}  // namespace

TEST(fragments_lie_as_the_manual_draws_them) {
  std::vector<Mma> known;
  constexpr Element kSums[] = {Element::kF16, Element::kF32};
  for (const Element c : kSums) {
    for (const Element d : kSums) {
      known.push_back({16, 8, 16, Element::kF16, Element::kF16, c, d});
      if (c == d) known.push_back({16, 8, 8, Element::kF16, Element::kF16, c, d});
    }
  }
  constexpr Element kF32 = Element::kF32;
  known.push_back({16, 8, 8, Element::kBf16, Element::kBf16, kF32, kF32});
  known.push_back({16, 8, 16, Element::kBf16, Element::kBf16, kF32, kF32});
  known.push_back({16, 8, 4, Element::kTf32, Element::kTf32, kF32, kF32});
  known.push_back({16, 8, 8, Element::kTf32, Element::kTf32, kF32, kF32});
  constexpr Element kBytes[] = {Element::kS8, Element::kU8};
  constexpr Element kNibbles[] = {Element::kS4, Element::kU4};
  constexpr Element kS32 = Element::kS32;
  for (int i = 0; i < 4; ++i) {
    const Element byte_a = kBytes[i / 2];
    const Element byte_b = kBytes[i % 2];
    const Element nibble_a = kNibbles[i / 2];
    const Element nibble_b = kNibbles[i % 2];
    for (const bool saturates : {false, true}) {
      known.push_back({8, 8, 16, byte_a, byte_b, kS32, kS32, saturates});
      known.push_back({16, 8, 16, byte_a, byte_b, kS32, kS32, saturates});
      known.push_back({16, 8, 32, byte_a, byte_b, kS32, kS32, saturates});
      known.push_back({8, 8, 32, nibble_a, nibble_b, kS32, kS32, saturates});
      known.push_back({16, 8, 32, nibble_a, nibble_b, kS32, kS32, saturates});
      known.push_back({16, 8, 64, nibble_a, nibble_b, kS32, kS32, saturates});
    }
  }
  for (const Mma& mma : known) {
    expect(is_known(mma), "m", mma.m, "k", mma.k, " of ", static_cast<int>(mma.a));
    const bool is_tf32 = mma.a == Element::kTf32;
    const bool is_half = mma.a == Element::kF16 || mma.a == Element::kBf16;
    const bool is_byte = mma.a == Element::kS8 || mma.a == Element::kU8;
    const int bits = is_tf32 ? 32 : is_half ? 16 : is_byte ? 8 : 4;
    for (const Generation generation : kGenerations) {
      check_layout(mma, bits, generation, false);
      check_layout(mma, bits, generation, true);
    }
  }
}

TEST(unknown_products_are_told) {
  constexpr Element kF16 = Element::kF16;
  constexpr Element kF32 = Element::kF32;
  expect(!is_known({16, 8, 32, kF16, kF16, kF32, kF32}), "k 32 of f16");
  expect(!is_known({8, 8, 4, kF16, kF16, kF32, kF32}), "m8n8k4");
  expect(!is_known({16, 16, 16, kF16, kF16, kF32, kF32}), "n 16");
  expect(!is_known({16, 8, 16, kF16, Element::kBf16, kF32, kF32}), "mixed halves");
  expect(!is_known({16, 8, 16, Element::kBf16, Element::kBf16, kF16, kF16}), "bf16 into f16");
  expect(!is_known({16, 8, 8, kF16, kF16, kF32, kF16}), "k 8 from f32 into f16");
  expect(!is_known({16, 8, 16, kF16, kF16, kF32, kF32, true}), "saturated floats");
  expect(!is_known({16, 8, 32, Element::kS8, Element::kS4, Element::kS32, Element::kS32}),
         "bytes and nibbles");
  expect(!is_known({16, 8, 32, Element::kS8, Element::kS8, kF32, kF32}), "integers into f32");
}

TEST(integer_sums_wrap_or_saturate) {
  for (const bool saturates : {false, true}) {
    const Mma mma{8, 8, 16, Element::kU8, Element::kS8, Element::kS32, Element::kS32, saturates};
    Fragment a = {};
    Fragment b = {};
    Fragment c = {};
    a[0][0] = 0x000000FF;  // row 0, k 0
    b[0][0] = 0x0000007F;  // k 0, column 0
    b[0][4] = 0x00000080;  // k 0, column 1
    c[0][0] = 0x7FFFFFFF;
    c[1][0] = 0x80000000;
    multiply(mma, Generation::kAmpere, a, b, c, c);
    expect(c[0][0] == (saturates ? 0x7FFFFFFF : 0x7FFFFFFF + 255u * 127u), "largest");
    expect(c[1][0] == (saturates ? 0x80000000 : 0x80000000 - 255u * 128u), "smallest");
  }
}

TEST(dot_is_an_element_of_multiply) {
  std::mt19937 random(4);
  const Mma mma{16, 8, 16, Element::kBf16, Element::kBf16, Element::kF32, Element::kF32};
  const Shape& shape = shape_of(16, 16, 16);
  for (const Generation generation : kGenerations) {
    uint16_t a[16][16];
    uint16_t b[8][16];
    Fragment fragment_a = {};
    Fragment fragment_b = {};
    Fragment d = {};
    for (int k = 0; k < 16; ++k) {
      for (auto& row : a) row[k] = random_number(random);
      for (auto& column : b) column[k] = random_number(random);
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < shape.a_elements; ++i) {
        const Position at = shape.a(i, lane / 4, lane % 4);
        put(fragment_a, lane, i, 16, a[at.row][at.column]);
      }
      for (int i = 0; i < shape.b_elements; ++i) {
        const Position at = shape.b(i, lane / 4, lane % 4);
        put(fragment_b, lane, i, 16, b[at.column][at.row]);
      }
    }
    multiply(mma, generation, fragment_a, fragment_b, d, d);
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const Position at = position_of_c(16, i, lane / 4, lane % 4);
        const float want = dot(generation, Element::kBf16, a[at.row], b[at.column], 16, 0);
        expect(d[i][lane] == std::bit_cast<uint32_t>(want), "row ", at.row, " column ", at.column);
      }
    }
  }
}

}  // namespace ptx::test
