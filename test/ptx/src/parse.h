// The text of a PTX module, read.
#pragma once

#include <stdexcept>
#include <string_view>

#include "module.h"

namespace ptx {

// Text that is no PTX, or PTX that this reader doesn't know: says the line and what it expected.
class ParseError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

Module parse(std::string_view text);

}  // namespace ptx
