// The matrix instructions of a warp: fragments and the order in which tensor cores add.
#pragma once

#include <cstdint>

namespace ptx {

// How a tensor core adds the products of one instruction to the accumulator.
enum class Generation : uint8_t {
  kExact,   // the exact sum, rounded once to nearest even
  kAmpere,  // sm_80 to sm_89: blocks of 8 products of 16 bits along k, 24 + 1 bits
  kHopper,  // sm_90: blocks of 16, 24 + 2 bits
};

enum class Element : uint8_t { kF16, kBf16, kTf32, kF32, kS8, kU8, kS4, kU4, kS32 };

// mma.sync.aligned.mMnNkK.row.col of dense operands.
struct Mma {
  int m, n, k;
  Element a, b;            // f16, bf16, tf32 or integers
  Element c, d;            // f16, f32 or s32
  bool saturates = false;  // .satfinite of integers
};

// Whether the shape and types are ones that PTX has and `multiply` knows.
bool is_known(const Mma& mma);

// Registers of 32 bits that each lane holds of an operand.
int registers_of_a(const Mma& mma);
int registers_of_b(const Mma& mma);
int registers_of_c(const Mma& mma);
int registers_of_d(const Mma& mma);

constexpr int kMaxFragment = 8;               // registers of an operand, at most
using Fragment = uint32_t[kMaxFragment][32];  // [register][lane]

// d = a b + c for the whole warp. `d` may be `c`. Fragments are laid out as the PTX manual draws
// them.
void multiply(const Mma& mma, Generation generation, const Fragment& a, const Fragment& b,
              const Fragment& c, Fragment& d);

// One element: c + sum over k of a[i] b[i], of 16-bit formats into float32, block after block. A k
// above 16 is a chain of instructions of k 16, each rounded.
float dot(Generation generation, Element format, const uint16_t* a, const uint16_t* b, int k,
          float c);

}  // namespace ptx
