// The body of a function: registers, variables, labels and instructions, in nested scopes.
#pragma once

#include <string>
#include <unordered_set>

#include "lexer.h"
#include "module.h"

namespace ptx {

// Names that every function of the module knows: its variables and functions.
using Names = std::unordered_set<std::string>;

// Reads `{ ... }` into `function`, whose parameters are read already. A name that an inner scope or
// the function declares again is stored with a number: `p@2`.
void read_body(Reader& reader, const Names& names, Function& function);

}  // namespace ptx
