#include "declarations.h"

#include <bit>
#include <cstring>
#include <span>
#include <unordered_map>

#include "parse.h"

namespace ptx {
namespace {

// The bits of a number as an element of this type; nothing where PTX doesn't convert.
std::optional<uint64_t> convert(Number number, Type type) {
  const bool is_double = number.kind == OperandKind::kFloat64;
  if (type == Type::kF32 && is_double) {
    return std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(number.bits)));
  }
  if (number.kind == OperandKind::kInteger) {
    if (type == Type::kF32) {
      return std::bit_cast<uint32_t>(static_cast<float>(static_cast<int64_t>(number.bits)));
    }
    if (type == Type::kF64) {
      return std::bit_cast<uint64_t>(static_cast<double>(static_cast<int64_t>(number.bits)));
    }
    return size_of(type) <= 8 ? std::optional(number.bits) : std::nullopt;
  }
  const bool takes_bits = is_double ? type == Type::kF64 || type == Type::kB64
                                    : type == Type::kF32 || type == Type::kB32;
  return takes_bits ? std::optional(number.bits) : std::nullopt;
}

void read_element(Reader& reader, Type type, std::span<std::byte> out) {
  const Token token = reader.peek();
  const Number number = reader.expect_number("a number (addresses are no initial values here)");
  const std::optional<uint64_t> bits = convert(number, type);
  if (!bits) fail_of(token, "a number of the variable's type");
  std::memcpy(out.data(), &*bits, out.size());  // the low bytes of a little-endian word
}

// Elements of an array, row by row. Missing ones stay 0.
void read_values(Reader& reader, Type type, std::span<const uint64_t> dimensions,
                 std::span<std::byte> out) {
  if (dimensions.empty()) return read_element(reader, type, out);
  const size_t row = out.size() / dimensions[0];
  reader.expect("{");
  for (uint64_t i = 0; !reader.at("}"); ++i) {
    if (i > 0) reader.expect(",");
    if (i == dimensions[0]) reader.fail_here("no more than " + std::to_string(i) + " elements");
    read_values(reader, type, dimensions.subspan(1), out.subspan(i * row, row));
  }
  reader.expect("}");
}

std::vector<uint64_t> read_dimensions(Reader& reader) {
  std::vector<uint64_t> dimensions;
  while (reader.accept("[")) {
    dimensions.push_back(reader.at("]") ? 0 : reader.expect_integer("a number of elements"));
    reader.expect("]");
  }
  return dimensions;
}

// `.ptr .global .align 16`: what a parameter points to.
void skip_pointee(Reader& reader) {
  for (const char* space : {".global", ".shared", ".const", ".local"}) {
    if (reader.accept(space)) break;
  }
  if (reader.accept(".align")) reader.expect_integer("bytes");
}

}  // namespace

std::optional<Type> find_type(std::string_view dotted) {
  static const std::unordered_map<std::string_view, Type> types = {
      {".pred", Type::kPred}, {".b8", Type::kB8},       {".b16", Type::kB16},
      {".b32", Type::kB32},   {".b64", Type::kB64},     {".b128", Type::kB128},
      {".u8", Type::kU8},     {".u16", Type::kU16},     {".u32", Type::kU32},
      {".u64", Type::kU64},   {".s8", Type::kS8},       {".s16", Type::kS16},
      {".s32", Type::kS32},   {".s64", Type::kS64},     {".f16", Type::kF16},
      {".bf16", Type::kBf16}, {".f16x2", Type::kF16x2}, {".bf16x2", Type::kBf16x2},
      {".f32", Type::kF32},   {".f64", Type::kF64},
  };
  const auto found = types.find(dotted);
  return found == types.end() ? std::nullopt : std::optional(found->second);
}

Type read_type(Reader& reader) {
  const std::optional<Type> type = find_type(reader.peek().text);
  if (!type) reader.fail_here("a type");
  reader.next();
  return *type;
}

VariablePrefix read_prefix(Reader& reader, Space space) {
  VariablePrefix prefix{.space = space, .type = Type::kB8, .lanes = 1, .align = 0};
  bool has_type = false;
  while (reader.at(TokenKind::kDotted)) {
    if (reader.accept(".align")) {
      prefix.align = reader.expect_integer("bytes");
    } else if (reader.accept(".v2")) {
      prefix.lanes = 2;
    } else if (reader.accept(".v4")) {
      prefix.lanes = 4;
    } else if (reader.accept(".ptr")) {
      skip_pointee(reader);
    } else if (reader.accept(".attribute")) {
      reader.skip_nested("(", ")");
    } else {
      prefix.type = read_type(reader);
      has_type = true;
    }
  }
  if (!has_type) reader.fail_here("a type");
  if (prefix.align == 0) prefix.align = static_cast<uint64_t>(size_of(prefix.type) * prefix.lanes);
  return prefix;
}

Variable read_variable(Reader& reader, const VariablePrefix& prefix) {
  Variable variable{.name = std::string(reader.expect(TokenKind::kWord, "a name").text),
                    .space = prefix.space,
                    .type = prefix.type,
                    .align = prefix.align,
                    .size = static_cast<uint64_t>(size_of(prefix.type)),
                    .initial = {}};
  std::vector<uint64_t> dimensions = read_dimensions(reader);
  if (prefix.lanes > 1) dimensions.push_back(static_cast<uint64_t>(prefix.lanes));
  for (const uint64_t dimension : dimensions) variable.size *= dimension;
  if (!reader.accept("=")) return variable;

  if (variable.size == 0) reader.fail_here("a number of elements before the initial values");
  variable.initial.resize(variable.size);
  read_values(reader, prefix.type, dimensions, variable.initial);
  return variable;
}

}  // namespace ptx
