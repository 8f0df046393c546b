// What the parts of compile.cpp share: rows for operands, and the modifiers of an instruction, each
// of which has to be understood by somebody.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "program.h"

namespace ptx {

class Builder {
 public:
  Builder(const Module& module, const Function& function, const std::vector<GlobalSymbol>& globals);

  // Begins with the next statement.
  void begin(const Statement& statement);
  // Refuses the statement if a modifier was left over; `known` says whether anybody took it.
  void end(bool known);

  const Statement& statement() const { return *statement_; }
  Instruction& instruction() { return instruction_; }
  Program& program() { return program_; }

  // Modifiers. `take` says whether the instruction has one, and that it is understood.
  bool take(std::string_view modifier);
  Type take_type();  // the next type among the modifiers
  std::optional<Type> take_any_type();
  std::optional<Type> last_type() const;                            // the last one, which stays
  std::optional<Round> take_round();                                // rn rz rm rp
  int take_vector();                                                // v2, v4, v8: 2, 4, 8; else 1
  std::optional<Space> take_space();                                // with ::cta and the like
  std::optional<std::string> take_prefix(std::string_view prefix);  // the first that begins so

  // Operands.
  size_t operand_count() const { return statement_->operands.size(); }
  const Operand& operand(size_t index) const;
  void result(const Operand& operand);             // register, or _; appends a row to `to`
  void source(const Operand& operand, Type type);  // appends a row to `from`
  // The parts of a vector, or the operand alone.
  void results(const Operand& operand);
  void sources(const Operand& operand, Type type);
  // [base + offset]: appends the row of the base, adds the offset to the instruction's.
  void address(const Operand& operand);
  Row row_of(const Operand& operand, Type type);
  int width_of(const Operand& operand) const;  // bytes of a register, or of the first of a vector
  Row constant(uint64_t bits);
  // A register that the program doesn't name, for results that nobody wants.
  Row scratch();
  // The carry of add.cc and its like, which the text doesn't name either.
  Row carry();

  [[noreturn]] void refuse(const std::string& why) const;

 private:
  Row special(const std::string& name);
  uint64_t address_of(const std::string& name) const;
  void place(const std::vector<const Variable*>& variables);

  const Function& function_;
  const std::vector<GlobalSymbol>& globals_;
  Program program_;
  const Statement* statement_ = nullptr;
  Instruction instruction_;
  std::vector<bool> taken_;
  std::map<uint64_t, Row> constants_;
  std::map<std::string, Row> specials_;
  std::map<std::string, uint64_t> variables_;  // addresses in their spaces
  Row scratch_ = kNoRow;
  Row carry_ = kNoRow;
};

// .relaxed.gpu and its like.
void take_strength(Builder& builder, AccessKind& access);

// Each looks whether the statement is one of its own, and if so sets `run` and the rest.
bool select_integer(Builder& builder);
bool select_bit(Builder& builder);
bool select_compare(Builder& builder);
bool select_float(Builder& builder);
bool select_convert(Builder& builder);
bool select_memory(Builder& builder);
bool select_copy(Builder& builder);
bool select_atomic(Builder& builder);
bool select_warp(Builder& builder);
bool select_control(Builder& builder);

}  // namespace ptx
