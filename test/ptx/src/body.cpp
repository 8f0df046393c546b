#include "body.h"

#include <unordered_map>

#include "declarations.h"
#include "parse.h"
#include "special_registers.h"

namespace ptx {
namespace {

// What one `{ ... }` declares.
struct Scope {
  int parent;  // -1 of the body itself
  std::unordered_map<std::string, int> registers;
  std::unordered_map<std::string, std::string> variables;  // to the name in Function::variables
  std::unordered_map<std::string, int> labels;             // to the statement
  std::unordered_map<std::string, Operand> tables;         // .branchtargets
};

Operand make_operand(OperandKind kind, int index = -1, const std::string& name = "") {
  Operand operand{};
  operand.kind = kind;
  operand.index = index;
  operand.name = name;
  return operand;
}

Operand make_constant(Number number) {
  Operand operand = make_operand(number.kind);
  operand.value = number.bits;
  return operand;
}

class BodyReader {
 public:
  BodyReader(Reader& reader, const Names& names, Function& function)
      : reader_(reader), names_(names), function_(function) {}

  void read() {
    reader_.expect("{");
    push_scope();
    for (const std::vector<Variable>* known : {&function_.parameters, &function_.variables}) {
      for (const Variable& variable : *known) {
        scope().variables.emplace(variable.name, variable.name);
        ++uses_[variable.name];
      }
    }
    while (current_ >= 0) read_item();
    for (Statement& statement : function_.statements) {
      for (Operand& operand : statement.operands) resolve(operand, statement.line);
    }
  }

 private:
  Scope& scope() { return scopes_[static_cast<size_t>(current_)]; }

  void push_scope() {
    Scope inner{};
    inner.parent = current_;
    current_ = static_cast<int>(scopes_.size());
    scopes_.push_back(std::move(inner));
  }

  void read_item() {
    if (reader_.accept("{")) {
      push_scope();
    } else if (reader_.accept("}")) {
      current_ = scope().parent;
    } else if (reader_.at(TokenKind::kDotted)) {
      read_directive();
    } else if (reader_.at(TokenKind::kWord) && reader_.peek(1).text == ":") {
      read_label();
    } else if (!reader_.accept(";")) {  // an empty statement, as inline assembly has it
      read_instruction();
    }
  }

  // Declarations.

  void read_directive() {
    if (reader_.accept(".reg")) {
      read_registers();
    } else if (reader_.accept(".shared")) {
      read_variables(Space::kShared);
    } else if (reader_.accept(".local")) {
      read_variables(Space::kLocal);
    } else if (reader_.accept(".param")) {
      read_variables(Space::kParam);
    } else if (reader_.accept(".loc") || reader_.accept(".file")) {
      reader_.skip_line();
    } else if (reader_.accept(".pragma")) {
      reader_.skip_through(";");
    } else {
      reader_.fail_here("an instruction or .reg, .shared, .local, .param, .loc, .pragma");
    }
  }

  void read_registers() {
    const Type type = read_type(reader_);
    do {
      const Token name = reader_.expect(TokenKind::kWord, "the name of a register");
      if (!reader_.accept("<")) {
        declare_register(name, std::string(name.text), type);
        continue;
      }
      const uint64_t count = reader_.expect_integer("a number of registers");
      reader_.expect(">");
      for (uint64_t i = 0; i < count; ++i) {
        declare_register(name, std::string(name.text) + std::to_string(i), type);
      }
    } while (reader_.accept(","));
    reader_.expect(";");
  }

  void declare_register(const Token& token, const std::string& name, Type type) {
    if (!scope().registers.emplace(name, static_cast<int>(function_.registers.size())).second) {
      fail_of(token, "a register that isn't declared yet");
    }
    function_.registers.push_back({unique(name), type});
  }

  void read_variables(Space space) {
    const VariablePrefix prefix = read_prefix(reader_, space);
    do {
      const Token token = reader_.peek();
      Variable variable = read_variable(reader_, prefix);
      const std::string name = variable.name;
      variable.name = unique(name);
      if (!scope().variables.emplace(name, variable.name).second) {
        fail_of(token, "a variable that isn't declared yet");
      }
      function_.variables.push_back(std::move(variable));
    } while (reader_.accept(","));
    reader_.expect(";");
  }

  std::string unique(const std::string& name) {
    const int count = ++uses_[name] + (names_.contains(name) ? 1 : 0);
    return count == 1 ? name : name + "@" + std::to_string(count);
  }

  void read_label() {
    const Token token = reader_.next();
    const std::string name(token.text);
    const int target = static_cast<int>(function_.statements.size());
    reader_.expect(":");
    if (!scope().labels.emplace(name, target).second) {
      fail_of(token, "a label that isn't declared yet");
    }
    if (reader_.accept(".branchtargets")) {
      scope().tables.emplace(name, read_list(";"));
    } else if (reader_.at(".callprototype") || reader_.at(".calltargets")) {
      reader_.skip_through(";");
    }
  }

  // Instructions.

  void read_instruction() {
    Statement statement;
    statement.line = reader_.peek().line;
    if (reader_.accept("@")) read_guard(statement);
    statement.opcode = reader_.expect(TokenKind::kWord, "an instruction").text;
    while (reader_.at(TokenKind::kDotted)) {
      statement.modifiers.emplace_back(reader_.next().text.substr(1));
    }
    if (!reader_.at(";")) {
      do {
        statement.operands.push_back(read_operand());
      } while (reader_.accept(","));
    }
    if (!reader_.accept(";")) reader_.fail_here("`,` or `;`");
    function_.statements.push_back(std::move(statement));
  }

  void read_guard(Statement& statement) {
    const Operand guard = read_predicate(reader_.accept("!"));
    statement.guard = guard.index;
    statement.guard_negated = guard.negated;
  }

  Operand read_operand() {
    Operand first = read_part();
    if (!reader_.accept("|")) return first;
    Operand pair = make_operand(OperandKind::kPair);
    pair.elements.push_back(std::move(first));
    pair.elements.push_back(read_part());
    return pair;
  }

  Operand read_part() {
    if (reader_.accept("[")) return read_address();
    if (reader_.accept("{")) return read_list("}");
    if (reader_.accept("(")) return read_list(")");  // arguments of a call
    if (reader_.accept("!")) return read_predicate(true);
    if (!reader_.at(TokenKind::kWord)) {
      const Number number = reader_.expect_number("an operand");
      return make_constant(number);
    }
    if (reader_.accept("_")) return make_operand(OperandKind::kSink);
    Operand operand = read_name();
    if (operand.kind == OperandKind::kVariable) operand.offset = read_offset();
    return operand;
  }

  Operand read_predicate(bool negated) {
    const Token token = reader_.peek();
    Operand operand = read_name();
    if (operand.kind != OperandKind::kRegister) fail_of(token, "a predicate that is declared");
    operand.negated = negated;
    return operand;
  }

  Operand read_list(std::string_view close) {
    Operand list = make_operand(OperandKind::kVector);
    while (!reader_.accept(close)) {
      if (!list.elements.empty() && !reader_.accept(",")) {
        reader_.fail_here("`,` or `" + std::string(close) + "`");
      }
      list.elements.push_back(read_operand());
    }
    return list;
  }

  // After `[`. A tensor's address has its coordinates as a second element.
  Operand read_address() {
    Operand address = make_operand(OperandKind::kAddress);
    if (reader_.at(TokenKind::kNumber)) {
      const uint64_t value = reader_.expect_integer("an address");
      address.elements.push_back(make_constant({OperandKind::kInteger, value}));
    } else {
      const Token token = reader_.peek();
      const Operand base = read_name();
      if (base.kind != OperandKind::kRegister && base.kind != OperandKind::kVariable) {
        fail_of(token, "a register or variable that is declared");
      }
      address.elements.push_back(base);
    }
    address.offset = read_offset();
    while (reader_.accept(",")) address.elements.push_back(read_operand());
    if (!reader_.accept("]")) reader_.fail_here("`+`, `,` or `]`");
    return address;
  }

  // Any `+4`, `-4` or `+-4`; 0 without.
  int64_t read_offset() {
    uint64_t offset = 0;
    while (reader_.at("+") || reader_.at("-")) {
      reader_.accept("+");
      const bool is_negative = reader_.accept("-");
      const uint64_t bytes = reader_.expect_integer("a number of bytes");
      offset += is_negative ? 0 - bytes : bytes;
    }
    return static_cast<int64_t>(offset);
  }

  // A name that nothing declares yet is taken for a label, to be found by resolve(); until then
  // `index` is the scope that names it.
  Operand read_name() {
    const Token token = reader_.expect(TokenKind::kWord, "an operand");
    const std::string name(token.text);
    for (int i = current_; i >= 0; i = scopes_[static_cast<size_t>(i)].parent) {
      const Scope& known = scopes_[static_cast<size_t>(i)];
      if (const auto it = known.registers.find(name); it != known.registers.end()) {
        return make_operand(OperandKind::kRegister, it->second);
      }
      if (const auto it = known.variables.find(name); it != known.variables.end()) {
        return make_operand(OperandKind::kVariable, -1, it->second);
      }
    }
    if (names_.contains(name)) return make_operand(OperandKind::kVariable, -1, name);
    if (is_special_register(name)) return read_special(name);
    if (name == "WARP_SZ") return make_constant({OperandKind::kInteger, 32});
    return make_operand(OperandKind::kLabel, current_, name);
  }

  Operand read_special(std::string name) {
    for (const char* part : {".x", ".y", ".z", ".w"}) {
      if (reader_.accept(part)) {
        name += part;
        break;
      }
    }
    return make_operand(OperandKind::kSpecial, -1, name);
  }

  // Finds the statements of labels, which may stand after the branches to them.
  void resolve(Operand& operand, int line) {
    for (Operand& element : operand.elements) resolve(element, line);
    if (operand.kind != OperandKind::kLabel) return;
    for (int i = operand.index; i >= 0; i = scopes_[static_cast<size_t>(i)].parent) {
      const Scope& known = scopes_[static_cast<size_t>(i)];
      if (const auto it = known.tables.find(operand.name); it != known.tables.end()) {
        operand = it->second;
        for (Operand& element : operand.elements) resolve(element, line);
        return;
      }
      if (const auto it = known.labels.find(operand.name); it != known.labels.end()) {
        operand.index = it->second;
        return;
      }
    }
    fail(line, "a name that is declared", "`" + operand.name + "`");
  }

  Reader& reader_;
  const Names& names_;
  Function& function_;
  std::vector<Scope> scopes_;
  int current_ = -1;
  std::unordered_map<std::string, int> uses_;  // how often a name is declared
};

}  // namespace

void read_body(Reader& reader, const Names& names, Function& function) {
  BodyReader(reader, names, function).read();
}

}  // namespace ptx
