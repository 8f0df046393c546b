// What the instructions on integers and bits share.
#pragma once

#include "build.h"
#include "lanes.h"

namespace ptx {

using I = const Instruction&;

template <typename Value>
using Unsigned = std::make_unsigned_t<Value>;

template <typename Value>
constexpr int kBits = 8 * static_cast<int>(sizeof(Value));

// The product with all its bits.
template <typename Value>
__int128 wide_product(Value a, Value b) {
  if constexpr (std::is_signed_v<Value>) return static_cast<__int128>(a) * b;
  return static_cast<__int128>(static_cast<unsigned __int128>(a) * b);
}

// Calls `use` with a value of the integer type that `type` is.
template <typename Use>
bool with_integer(Type type, const Use& use) {
  switch (type) {
    case Type::kU16:
    case Type::kB16:
      use(uint16_t{});
      return true;
    case Type::kS16:
      use(int16_t{});
      return true;
    case Type::kU32:
    case Type::kB32:
      use(uint32_t{});
      return true;
    case Type::kS32:
      use(int32_t{});
      return true;
    case Type::kU64:
    case Type::kB64:
      use(uint64_t{});
      return true;
    case Type::kS64:
      use(int64_t{});
      return true;
    default:
      return false;
  }
}

// Operands from number `first` on.
inline void take_sources(Builder& b, size_t first, Type type) {
  for (size_t n = first; n < b.operand_count(); ++n) b.source(b.operand(n), type);
}

}  // namespace ptx
