// Declarations of variables: `.align 4 .b8 name[16] = {1, 2}`, after their `.shared` or `.param`.
#pragma once

#include <optional>

#include "lexer.h"
#include "module.h"

namespace ptx {

// The type that `.f32` names.
std::optional<Type> find_type(std::string_view dotted);
Type read_type(Reader& reader);

// What stands before the names and holds for all of them.
struct VariablePrefix {
  Space space;
  Type type;
  int lanes;       // of `.v4`; 1 without
  uint64_t align;  // bytes
};

VariablePrefix read_prefix(Reader& reader, Space space);

// A name with its dimensions and initial values.
Variable read_variable(Reader& reader, const VariablePrefix& prefix);

}  // namespace ptx
