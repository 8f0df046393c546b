// The tokens of PTX text, and a place among them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "module.h"

namespace ptx {

enum class TokenKind : uint8_t {
  kWord,    // ld, %r1, $L__BB0_1
  kDotted,  // .global, .L2::128B
  kNumber,  // 12, 0x1F, 0f3F800000, 1.5
  kString,  // "a", with its quotes
  kMark,    // one character: ; , [ {
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string_view text;  // of the text read
  int line;
};

// A constant as an operand has it: kInteger, kFloat32 or kFloat64, and its bits.
struct Number {
  OperandKind kind;
  uint64_t bits;
};

// Fails with "line 3: expected `;`, got `,`".
[[noreturn]] void fail(int line, std::string_view expected, std::string_view got);
[[noreturn]] void fail_of(const Token& token, std::string_view expected);

// Reads the tokens one after another. `text` must outlive it.
class Reader {
 public:
  explicit Reader(std::string_view text);

  const Token& peek(size_t ahead = 0) const;
  bool at(TokenKind kind) const { return peek().kind == kind; }
  bool at(std::string_view text) const { return peek().text == text; }
  Token next();

  bool accept(std::string_view text);
  void expect(std::string_view text);
  Token expect(TokenKind kind, std::string_view what);
  uint64_t expect_integer(std::string_view what);
  Number expect_number(std::string_view what);  // with its sign

  void skip_line();  // the rest of the line of the last token
  void skip_through(std::string_view text);
  void skip_nested(std::string_view open, std::string_view close);  // `{ ... { ... } ... }`

  [[noreturn]] void fail_here(std::string_view expected) const;

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
};

}  // namespace ptx
