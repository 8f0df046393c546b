#include "lexer.h"

#include <algorithm>
#include <bit>
#include <charconv>

#include "parse.h"

namespace ptx {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_word_start(char c) { return is_letter(c) || c == '_' || c == '$' || c == '%'; }
bool follows_in_word(char c) { return is_letter(c) || is_digit(c) || c == '_' || c == '$'; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::vector<Token> all() {
    std::vector<Token> tokens;
    do {
      tokens.push_back(token());
    } while (tokens.back().kind != TokenKind::kEnd);
    return tokens;
  }

 private:
  char at(size_t position) const { return position < text_.size() ? text_[position] : '\0'; }

  Token token() {
    skip_blanks();
    const size_t start = position_;
    const int line = line_;
    if (start == text_.size()) return {TokenKind::kEnd, {}, line};
    const TokenKind kind = scan(text_[start]);
    return {kind, text_.substr(start, position_ - start), line};
  }

  // Moves past the token that starts with `first`.
  TokenKind scan(char first) {
    if (is_word_start(first)) {
      ++position_;
      skip_word();
      return TokenKind::kWord;
    }
    if (is_digit(first)) {
      skip_number();
      return TokenKind::kNumber;
    }
    if (first == '.' && follows_in_word(at(position_ + 1))) {
      ++position_;
      skip_word();
      while (text_.substr(position_, 2) == "::") {
        position_ += 2;
        skip_word();
      }
      return TokenKind::kDotted;
    }
    if (first == '"') {
      skip_string();
      return TokenKind::kString;
    }
    ++position_;
    if (std::string_view(";:,()[]{}<>=+-|!@").find(first) == std::string_view::npos) {
      fail(line_, "PTX", "`" + std::string(1, first) + "`");
    }
    return TokenKind::kMark;
  }

  void skip_word() {
    while (follows_in_word(at(position_))) ++position_;
  }

  void skip_number() {
    const bool has_prefix = at(position_) == '0' && is_letter(at(position_ + 1));
    skip_word();
    if (has_prefix) return;
    if (at(position_) == '.' && is_digit(at(position_ + 1))) {
      ++position_;
      skip_word();
    }
    const char last = text_[position_ - 1];
    const char sign = at(position_);
    if ((last == 'e' || last == 'E') && (sign == '+' || sign == '-')) {
      ++position_;
      skip_word();
    }
  }

  void skip_string() {
    const int line = line_;
    for (++position_; at(position_) != '"'; ++position_) {
      if (at(position_) == '\\') ++position_;
      if (position_ >= text_.size() || at(position_) == '\n') {
        fail(line, "a closing `\"`", "the end of the line");
      }
    }
    ++position_;
  }

  void skip_blanks() {
    for (; position_ < text_.size(); ++position_) {
      const char c = text_[position_];
      if (c == '\n') {
        ++line_;
      } else if (text_.substr(position_, 2) == "//") {
        position_ = std::min(text_.find('\n', position_), text_.size()) - 1;
      } else if (text_.substr(position_, 2) == "/*") {
        skip_comment();
      } else if (c != ' ' && c != '\t' && c != '\r' && c != '\0') {  // NUL: the end of a C string
        return;
      }
    }
  }

  // Stops at the last character of a comment of this kind.
  void skip_comment() {
    const size_t end = text_.find("*/", position_ + 2);
    if (end == std::string_view::npos) fail(line_, "a closing `*/`", "the end of the text");
    const std::string_view comment = text_.substr(position_, end - position_);
    line_ += static_cast<int>(std::count(comment.begin(), comment.end(), '\n'));
    position_ = end + 1;
  }

  std::string_view text_;
  size_t position_ = 0;
  int line_ = 1;
};

// All of `digits` as a number of this base.
bool read_integer(std::string_view digits, int base, uint64_t& value) {
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value, base);
  return error == std::errc() && stop == end;
}

bool read_prefixed(std::string_view text, Number& number) {
  const std::string_view digits = text.substr(2);
  switch (text[1]) {
    case 'x':
    case 'X':
      return read_integer(digits, 16, number.bits);
    case 'b':
    case 'B':
      return read_integer(digits, 2, number.bits);
    case 'f':
    case 'F':
      number.kind = OperandKind::kFloat32;
      return digits.size() == 8 && read_integer(digits, 16, number.bits);
    case 'd':
    case 'D':
      number.kind = OperandKind::kFloat64;
      return digits.size() == 16 && read_integer(digits, 16, number.bits);
    default:
      return read_integer(text.substr(1), 8, number.bits);
  }
}

bool read_decimal(std::string_view text, Number& number) {
  if (text.find_first_of(".eE") == std::string_view::npos) {
    return read_integer(text, 10, number.bits);
  }
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  number = {OperandKind::kFloat64, std::bit_cast<uint64_t>(value)};
  return error == std::errc() && stop == end;
}

bool read_number(std::string_view text, Number& number) {
  number = {OperandKind::kInteger, 0};
  const bool is_unsigned = text.back() == 'U';
  if (is_unsigned) text.remove_suffix(1);
  const bool has_prefix = text.size() > 1 && text[0] == '0' && text[1] != '.';
  const bool is_read = has_prefix ? read_prefixed(text, number) : read_decimal(text, number);
  return is_read && (!is_unsigned || number.kind == OperandKind::kInteger);
}

Number negated(Number number) {
  switch (number.kind) {
    case OperandKind::kFloat32:
      return {number.kind, number.bits ^ 0x8000'0000u};
    case OperandKind::kFloat64:
      return {number.kind, number.bits ^ 0x8000'0000'0000'0000u};
    default:
      return {number.kind, 0 - number.bits};
  }
}

}  // namespace

void fail(int line, std::string_view expected, std::string_view got) {
  throw ParseError("line " + std::to_string(line) + ": expected " + std::string(expected) +
                   ", got " + std::string(got));
}

void fail_of(const Token& token, std::string_view expected) {
  const bool is_end = token.kind == TokenKind::kEnd;
  fail(token.line, expected, is_end ? "the end of the text" : "`" + std::string(token.text) + "`");
}

Reader::Reader(std::string_view text) : tokens_(Lexer(text).all()) {}

const Token& Reader::peek(size_t ahead) const {
  return tokens_[std::min(position_ + ahead, tokens_.size() - 1)];
}

Token Reader::next() {
  const Token token = peek();
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool Reader::accept(std::string_view text) {
  if (!at(text)) return false;
  next();
  return true;
}

void Reader::expect(std::string_view text) {
  if (!accept(text)) fail_here("`" + std::string(text) + "`");
}

Token Reader::expect(TokenKind kind, std::string_view what) {
  if (!at(kind)) fail_here(what);
  return next();
}

Number Reader::expect_number(std::string_view what) {
  const bool is_negative = accept("-");
  Number number{};
  if (!at(TokenKind::kNumber) || !read_number(peek().text, number)) fail_here(what);
  next();
  return is_negative ? negated(number) : number;
}

uint64_t Reader::expect_integer(std::string_view what) {
  Number number{};
  if (!at(TokenKind::kNumber) || !read_number(peek().text, number) ||
      number.kind != OperandKind::kInteger) {
    fail_here(what);
  }
  next();
  return number.bits;
}

void Reader::skip_line() {
  const int line = position_ > 0 ? tokens_[position_ - 1].line : 1;
  while (!at(TokenKind::kEnd) && peek().line == line) next();
}

void Reader::skip_through(std::string_view text) {
  while (!at(TokenKind::kEnd) && !at(text)) next();
  expect(text);
}

void Reader::skip_nested(std::string_view open, std::string_view close) {
  expect(open);
  for (int depth = 1; depth > 0; next()) {
    if (at(TokenKind::kEnd)) fail_here("`" + std::string(close) + "`");
    if (at(open)) ++depth;
    if (at(close)) --depth;
  }
}

void Reader::fail_here(std::string_view expected) const { fail_of(peek(), expected); }

}  // namespace ptx
