// Writes JSON, as far as results need it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace ptx {

class Json {
 public:
  Json& begin_object() { return open('{'); }
  Json& end_object() { return close('}'); }
  Json& begin_array() { return open('['); }
  Json& end_array() { return close(']'); }

  Json& key(std::string_view name) {
    string(name);
    text_ += ':';
    needs_comma_ = false;
    return *this;
  }

  Json& string(std::string_view value) {
    separate();
    text_ += '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') text_ += '\\';
      // Nothing that is written here has control characters in it.
      text_ += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    text_ += '"';
    return *this;
  }

  Json& number(uint64_t value) {
    separate();
    text_ += std::to_string(value);
    return *this;
  }

  std::string text() { return std::move(text_); }

 private:
  void separate() {
    if (needs_comma_) text_ += ',';
    needs_comma_ = true;
  }
  Json& open(char bracket) {
    separate();
    text_ += bracket;
    needs_comma_ = false;
    return *this;
  }
  Json& close(char bracket) {
    text_ += bracket;
    needs_comma_ = true;
    return *this;
  }

  std::string text_;
  bool needs_comma_ = false;
};

}  // namespace ptx
