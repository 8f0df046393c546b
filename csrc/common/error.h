// The error every op throws: a code of docs/errors.md and one sentence. Knows no Torch: the text
// crosses into Python as "marlin:<code>: <sentence>", and ops.py turns it into the typed class.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace marlin {

template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

[[noreturn]] inline void fail(const char* code, const std::string& sentence) {
  throw std::runtime_error(concat("marlin:", code, ": ", sentence));
}

template <typename... Parts>
[[noreturn]] void invalid_argument(const char* name, const Parts&... parts) {
  fail("invalid_argument", concat("`", name, "`: ", parts...));
}

}  // namespace marlin
