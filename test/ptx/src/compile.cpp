#include <algorithm>
#include <array>
#include <bit>
#include <set>

#include "build.h"

namespace ptx {
namespace {

constexpr std::array<std::pair<std::string_view, Type>, 20> kTypes = {{
    {"pred", Type::kPred}, {"b8", Type::kB8},         {"b16", Type::kB16}, {"b32", Type::kB32},
    {"b64", Type::kB64},   {"b128", Type::kB128},     {"u8", Type::kU8},   {"u16", Type::kU16},
    {"u32", Type::kU32},   {"u64", Type::kU64},       {"s8", Type::kS8},   {"s16", Type::kS16},
    {"s32", Type::kS32},   {"s64", Type::kS64},       {"f16", Type::kF16}, {"f16x2", Type::kF16x2},
    {"bf16", Type::kBf16}, {"bf16x2", Type::kBf16x2}, {"f32", Type::kF32}, {"f64", Type::kF64},
}};

std::optional<Type> type_named(std::string_view name) {
  for (const auto& [known, type] : kTypes) {
    if (known == name) return type;
  }
  return std::nullopt;
}

uint64_t align_up(uint64_t value, uint64_t align) {
  return align <= 1 ? value : (value + align - 1) / align * align;
}

void collect_names(const Operand& operand, std::set<std::string>& names) {
  if (operand.kind == OperandKind::kVariable) names.insert(operand.name);
  for (const Operand& element : operand.elements) collect_names(element, names);
}

std::string full_name(const Statement& statement) {
  std::string name = statement.opcode;
  for (const std::string& modifier : statement.modifiers) name += "." + modifier;
  return name;
}

}  // namespace

Builder::Builder(const Module& module, const Function& function,
                 const std::vector<GlobalSymbol>& globals)
    : function_(function), globals_(globals) {
  program_.name = function.name;
  program_.rows = static_cast<int>(function.registers.size());
  program_.max_threads = function.max_threads;
  program_.required_threads = function.required_threads;
  for (const Variable& parameter : function.parameters) {
    const uint64_t offset = align_up(program_.parameter_bytes, parameter.align);
    program_.parameters.push_back({parameter.name, offset, parameter.size});
    variables_[parameter.name] = offset;
    program_.parameter_bytes = offset + parameter.size;
  }
  std::vector<const Variable*> variables;
  for (const Variable& variable : function.variables) variables.push_back(&variable);
  // Shared memory of the module belongs to the functions that name it.
  std::set<std::string> names;
  for (const Statement& statement : function.statements) {
    for (const Operand& operand : statement.operands) collect_names(operand, names);
  }
  for (const Variable& variable : module.variables) {
    if (variable.space == Space::kShared && names.contains(variable.name)) {
      variables.push_back(&variable);
    }
  }
  place(variables);
}

// Dynamic shared memory, `extern`, begins where the static one ends.
void Builder::place(const std::vector<const Variable*>& variables) {
  uint64_t dynamic_align = 1;
  for (const Variable* variable : variables) {
    if (variable->is_extern) {
      dynamic_align = std::max(dynamic_align, variable->align);
      continue;
    }
    uint64_t& size =
        variable->space == Space::kShared ? program_.static_shared_bytes : program_.local_bytes;
    const uint64_t offset = align_up(size, variable->align);
    variables_[variable->name] = offset;
    size = offset + variable->size;
  }
  program_.static_shared_bytes = align_up(program_.static_shared_bytes, dynamic_align);
  for (const Variable* variable : variables) {
    if (variable->is_extern) variables_[variable->name] = program_.static_shared_bytes;
  }
}

void Builder::begin(const Statement& statement) {
  statement_ = &statement;
  taken_.assign(statement.modifiers.size(), false);
  instruction_ = {};
  instruction_.line = statement.line;
  instruction_.number = static_cast<uint32_t>(program_.instructions.size());
  if (statement.guard >= 0) {
    instruction_.guard = static_cast<Row>(statement.guard);
    instruction_.guard_negated = statement.guard_negated;
  }
  const std::string name = full_name(statement);
  const auto found = std::find(program_.opcodes.begin(), program_.opcodes.end(), name);
  instruction_.opcode = static_cast<uint32_t>(found - program_.opcodes.begin());
  if (found == program_.opcodes.end()) program_.opcodes.push_back(name);
}

void Builder::end(bool known) {
  if (!known) refuse("the instruction is not known");
  for (size_t i = 0; i < taken_.size(); ++i) {
    if (!taken_[i]) refuse("`." + statement_->modifiers[i] + "` is not known there");
  }
  if (program_.rows >= kNoRow) refuse("the function has too many registers");
  program_.instructions.push_back(instruction_);
}

void Builder::refuse(const std::string& why) const {
  throw UnsupportedError("line " + std::to_string(statement_->line) + ": `" +
                         full_name(*statement_) + "`: " + why);
}

bool Builder::take(std::string_view modifier) {
  for (size_t i = 0; i < taken_.size(); ++i) {
    if (!taken_[i] && statement_->modifiers[i] == modifier) {
      taken_[i] = true;
      return true;
    }
  }
  return false;
}

std::optional<Type> Builder::take_any_type() {
  for (size_t i = 0; i < taken_.size(); ++i) {
    if (taken_[i]) continue;
    if (const std::optional<Type> type = type_named(statement_->modifiers[i])) {
      taken_[i] = true;
      return type;
    }
  }
  return std::nullopt;
}

std::optional<Type> Builder::last_type() const {
  std::optional<Type> last;
  for (const std::string& modifier : statement_->modifiers) {
    if (const std::optional<Type> type = type_named(modifier)) last = type;
  }
  return last;
}

Type Builder::take_type() {
  const std::optional<Type> type = take_any_type();
  if (!type) refuse("expected a type among the modifiers");
  return *type;
}

std::optional<Round> Builder::take_round() {
  if (take("rn")) return Round::kNearest;
  if (take("rz")) return Round::kZero;
  if (take("rm")) return Round::kDown;
  if (take("rp")) return Round::kUp;
  return std::nullopt;
}

int Builder::take_vector() {
  if (take("v2")) return 2;
  if (take("v4")) return 4;
  if (take("v8")) return 8;
  return 1;
}

std::optional<Space> Builder::take_space() {
  constexpr std::array<std::pair<std::string_view, Space>, 8> kSpaces = {{
      {"global", Space::kGlobal},
      {"shared", Space::kShared},
      {"shared::cta", Space::kShared},
      {"local", Space::kLocal},
      {"const", Space::kConst},
      {"param", Space::kParam},
      {"param::entry", Space::kParam},
      {"generic", Space::kGeneric},
  }};
  for (const auto& [name, space] : kSpaces) {
    if (take(name)) return space;
  }
  return std::nullopt;
}

std::optional<std::string> Builder::take_prefix(std::string_view prefix) {
  for (size_t i = 0; i < taken_.size(); ++i) {
    if (!taken_[i] && statement_->modifiers[i].starts_with(prefix)) {
      taken_[i] = true;
      return statement_->modifiers[i];
    }
  }
  return std::nullopt;
}

const Operand& Builder::operand(size_t index) const {
  if (index >= statement_->operands.size()) {
    refuse("expected more than " + std::to_string(statement_->operands.size()) + " operands");
  }
  return statement_->operands[index];
}

Row Builder::scratch() {
  if (scratch_ == kNoRow) scratch_ = static_cast<Row>(program_.rows++);
  return scratch_;
}

Row Builder::carry() {
  if (carry_ == kNoRow) carry_ = static_cast<Row>(program_.rows++);
  return carry_;
}

Row Builder::constant(uint64_t bits) {
  const auto [at, is_new] = constants_.try_emplace(bits, static_cast<Row>(program_.rows));
  if (is_new) {
    program_.filled.push_back({at->second, Special::kConstant, bits});
    ++program_.rows;
  }
  return at->second;
}

Row Builder::special(const std::string& name) {
  constexpr std::array<std::pair<std::string_view, Special>, 25> kNames = {{
      {"%tid.x", Special::kTidX},
      {"%tid.y", Special::kTidY},
      {"%tid.z", Special::kTidZ},
      {"%ntid.x", Special::kNtidX},
      {"%ntid.y", Special::kNtidY},
      {"%ntid.z", Special::kNtidZ},
      {"%ctaid.x", Special::kCtaidX},
      {"%ctaid.y", Special::kCtaidY},
      {"%ctaid.z", Special::kCtaidZ},
      {"%nctaid.x", Special::kNctaidX},
      {"%nctaid.y", Special::kNctaidY},
      {"%nctaid.z", Special::kNctaidZ},
      {"%laneid", Special::kLaneid},
      {"%warpid", Special::kWarpid},
      {"%nwarpid", Special::kNwarpid},
      {"%lanemask_eq", Special::kLanemaskEq},
      {"%lanemask_lt", Special::kLanemaskLt},
      {"%lanemask_le", Special::kLanemaskLe},
      {"%lanemask_gt", Special::kLanemaskGt},
      {"%lanemask_ge", Special::kLanemaskGe},
      {"%gridid", Special::kGridid},
      {"%smid", Special::kSmid},
      {"%nsmid", Special::kNsmid},
      {"%dynamic_smem_size", Special::kDynamicSharedSize},
      {"%total_smem_size", Special::kTotalSharedSize},
  }};
  const auto known = specials_.find(name);
  if (known != specials_.end()) return known->second;
  for (const auto& [candidate, special] : kNames) {
    if (candidate != name) continue;
    const Row row = static_cast<Row>(program_.rows++);
    program_.filled.push_back({row, special, 0});
    specials_[name] = row;
    return row;
  }
  refuse("the special register `" + name + "` is not known");
}

uint64_t Builder::address_of(const std::string& name) const {
  const auto found = variables_.find(name);
  if (found != variables_.end()) return found->second;
  for (const GlobalSymbol& symbol : globals_) {
    if (symbol.name == name) return symbol.address;
  }
  refuse("the variable `" + name + "` is not known");
}

Row Builder::row_of(const Operand& operand, Type type) {
  switch (operand.kind) {
    case OperandKind::kRegister:
      return static_cast<Row>(operand.index);
    case OperandKind::kSpecial:
      return special(operand.name);
    case OperandKind::kInteger: {
      const int bytes = size_of(type);
      const uint64_t mask = bytes >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * bytes)) - 1;
      return constant(operand.value & mask);
    }
    case OperandKind::kFloat32:
      return constant(operand.value);
    case OperandKind::kFloat64:
      // Decimal constants have 64 bits, whatever the instruction makes of them.
      if (type != Type::kF32) return constant(operand.value);
      return constant(
          std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(operand.value))));
    case OperandKind::kVariable:
      return constant(address_of(operand.name) + static_cast<uint64_t>(operand.offset));
    case OperandKind::kSink:
      return scratch();
    case OperandKind::kLabel:
    case OperandKind::kAddress:
    case OperandKind::kVector:
    case OperandKind::kPair:
      break;
  }
  refuse("an operand is of a kind that was not expected there");
}

int Builder::width_of(const Operand& operand) const {
  if (operand.kind == OperandKind::kVector) return width_of(operand.elements.front());
  if (operand.kind != OperandKind::kRegister) return 8;
  return size_of(function_.registers[static_cast<size_t>(operand.index)].type);
}

void Builder::result(const Operand& operand) {
  if (operand.kind != OperandKind::kRegister && operand.kind != OperandKind::kSink) {
    refuse("expected a register for the result");
  }
  if (instruction_.results == std::size(instruction_.to)) refuse("has too many results");
  instruction_.to[instruction_.results++] = row_of(operand, Type::kB64);
}

void Builder::source(const Operand& operand, Type type) {
  if (instruction_.sources == std::size(instruction_.from)) refuse("has too many operands");
  if (operand.negated) refuse("`!` is not known there");
  instruction_.from[instruction_.sources++] = row_of(operand, type);
}

void Builder::results(const Operand& operand) {
  if (operand.kind != OperandKind::kVector) return result(operand);
  for (const Operand& element : operand.elements) result(element);
}

void Builder::sources(const Operand& operand, Type type) {
  if (operand.kind != OperandKind::kVector) return source(operand, type);
  for (const Operand& element : operand.elements) source(element, type);
}

void Builder::address(const Operand& operand) {
  if (operand.kind != OperandKind::kAddress || operand.elements.size() != 1) {
    refuse("expected an address in brackets");
  }
  const Operand& base = operand.elements.front();
  instruction_.offset += operand.offset;
  // A base of 32 bits holds its address in the low half of the row, and nothing above.
  source(base, Type::kB64);
}

Program compile(const Module& module, const Function& function,
                const std::vector<GlobalSymbol>& globals) {
  Builder builder(module, function, globals);
  for (const Statement& statement : function.statements) {
    builder.begin(statement);
    builder.end(select_control(builder) || select_memory(builder) || select_copy(builder) ||
                select_atomic(builder) || select_warp(builder) || select_convert(builder) ||
                select_float(builder) || select_integer(builder) || select_bit(builder) ||
                select_compare(builder));
  }
  // A function that runs off its end returns.
  Statement end;
  end.opcode = "ret";
  builder.begin(end);
  builder.end(select_control(builder));
  return std::move(builder.program());
}

}  // namespace ptx
