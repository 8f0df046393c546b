// The reader of PTX, construct by construct, and what it says of text that it refuses.

#include <bit>
#include <cstring>
#include <initializer_list>

#include "../src/parse.h"
#include "check.h"

namespace ptx::test {
namespace {

const char kHeader[] = ".version 9.0\n.target sm_80\n.address_size 64\n";  // lines 1 to 3

Module parse_module(const std::string& text) { return parse(kHeader + text); }

// A kernel with registers of each class; the first line of `body` is line 6.
std::string kernel(const std::string& body) {
  return std::string(kHeader) + ".visible .entry k(.param .u64 input, .param .b32 n) {\n" +
         ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>; .reg .pred %p<4>;\n" + body + "\n}\n";
}

constexpr int kFirstRd = 9;  // registers are numbered in the order of their declarations
constexpr int kFirstP = 27;

Function parse_body(const std::string& body) { return parse(kernel(body)).functions.at(0); }

Statement parse_statement(const std::string& text) { return parse_body(text).statements.at(0); }

// The operand of `mov.b32 %r0, ...`.
Operand parse_operand(const std::string& text) {
  return parse_statement("mov.b32 %r0, " + text + ";").operands.at(1);
}

bool is_register(const Operand& operand, int index) {
  return operand.kind == OperandKind::kRegister && operand.index == index;
}

bool is_variable(const Operand& operand, const std::string& name, int64_t offset = 0) {
  return operand.kind == OperandKind::kVariable && operand.name == name && operand.offset == offset;
}

bool is_label(const Operand& operand, int statement) {
  return operand.kind == OperandKind::kLabel && operand.index == statement;
}

template <typename T>
std::vector<T> elements_of(const Variable& variable) {
  std::vector<T> elements(variable.initial.size() / sizeof(T));
  std::memcpy(elements.data(), variable.initial.data(), variable.initial.size());
  return elements;
}

void expect_error(const std::string& text, const std::string& message) {
  try {
    parse(text);
    expect(false, "read without complaint, expected: ", message);
  } catch (const ParseError& error) {
    expect(message == error.what(), "expected: ", message, "; got: ", error.what());
  }
}

void expect_body_error(const std::string& body, const std::string& message) {
  expect_error(kernel(body), message);
}

}  // namespace

TEST(parse_reads_version_and_target) {
  const Module module = parse(".version 8.7\n.target sm_90a, debug\n.address_size 64\n");
  expect(module.version == "8.7", "version ", module.version);
  expect(module.target == "sm_90a", "target ", module.target);
  expect(module.functions.empty() && module.variables.empty(), "an empty module");
}

TEST(parse_skips_comments_of_both_kinds) {
  const Function function = parse_body("// ret; {\n/* ret;\n} */ ret; // ret;\n/**/ exit;");
  expect(function.statements.size() == 2, "statements ", function.statements.size());
  expect(function.statements.at(0).line == 8, "line ", function.statements.at(0).line);
  expect(function.statements.at(1).line == 9, "line ", function.statements.at(1).line);
}

TEST(parse_reads_parameters_with_alignment_and_arrays) {
  const Function function = parse_module(
                                ".entry k(\n.param .u64 .ptr .global .align 16 a,\n"
                                ".param .align 8 .b8 s[24],\n.param .f32 x\n)\n{ ret; }")
                                .functions.at(0);
  expect(function.is_entry && function.name == "k", "name ", function.name);
  const std::vector<Variable>& parameters = function.parameters;
  expect(parameters.size() == 3, "parameters ", parameters.size());
  const auto has = [](const Variable& v, const char* name, uint64_t size, uint64_t align) {
    return v.name == name && v.size == size && v.align == align && v.space == Space::kParam;
  };
  // The alignment after .ptr is that of what it points to.
  expect(has(parameters.at(0), "a", 8, 8), "a: ", parameters.at(0).align);
  expect(has(parameters.at(1), "s", 24, 8), "s: ", parameters.at(1).size);
  expect(has(parameters.at(2), "x", 4, 4), "x: ", parameters.at(2).size);
}

TEST(parse_reads_entries_without_parameters) {
  const Module module = parse_module(".visible .entry a { ret; }\n.weak .entry b() { ret; exit; }");
  expect(module.functions.size() == 2, "functions ", module.functions.size());
  expect(module.functions.at(1).statements.size() == 2, "statements of b");
}

TEST(parse_reads_bounds_of_threads) {
  const Module module = parse_module(
      ".entry a() .maxntid 128, 2, 1 .minnctapersm 2 .maxnreg 64 { ret; }\n"
      ".entry b() .reqntid 64 .pragma \"nounroll\"; .reqnctapercluster 2, 1, 1 { ret; }");
  expect(module.functions.at(0).max_threads == 256, "max ", module.functions.at(0).max_threads);
  expect(module.functions.at(0).required_threads == 0, "none required of a");
  expect(module.functions.at(1).required_threads == 64, "required of b");
  expect(module.functions.at(1).max_threads == 0, "no maximum of b");
}

TEST(parse_skips_what_is_for_debuggers) {
  const Module module = parse_module(
      ".file 1 \"a \\\"quoted\\\".cu\"\n"
      ".entry k() {\n.loc 1 10 5, function_name $L__info, inlined_at 1 2 3\n.pragma \"nounroll\";\n"
      "ret;\n}\n.section .debug_str\n{\n$L__info: .b8 1, 2\n.b32 .debug_abbrev\n{ }\n}\n"
      ".alias a, b;\n.global .b32 g;\n");
  expect(module.functions.at(0).statements.size() == 1, "one statement");
  expect(module.variables.size() == 1 && module.variables.at(0).name == "g", "g comes after");
}

TEST(parse_reads_variables_of_the_module) {
  const Module module = parse_module(
      ".extern .shared .align 16 .b8 smem[];\n.visible .global .attribute(.managed) .f32 a, b[3];\n"
      ".const .v4 .f32 c[2];\n.shared .b16 d[2][3];");
  const std::vector<Variable>& variables = module.variables;
  expect(variables.size() == 5, "variables ", variables.size());
  expect(variables.at(0).is_extern && variables.at(0).size == 0 && variables.at(0).align == 16,
         "smem");
  expect(variables.at(0).space == Space::kShared, "space of smem");
  expect(!variables.at(1).is_extern && variables.at(1).size == 4, "a");
  expect(variables.at(2).size == 12 && variables.at(2).space == Space::kGlobal, "b");
  expect(variables.at(3).size == 32 && variables.at(3).align == 16, "c");
  expect(variables.at(3).space == Space::kConst && variables.at(3).initial.empty(), "space of c");
  expect(variables.at(4).size == 12 && variables.at(4).type == Type::kB16, "d");
}

TEST(parse_reads_initial_values) {
  const Module module = parse_module(
      ".global .align 4 .b8 text[6] = {104, 105, -1, 0x7F};\n.global .u32 one = 0xDEADBEEF;\n"
      ".const .f32 floats[5] = {0f3F800000, -0f3F800000, 1.5, 2, -2.5e-1};\n"
      ".const .f64 doubles[2] = {0d3FF0000000000000, -3};\n"
      ".const .s32 rows[3][2] = {{1}, {2, 3}};\n.const .v2 .s64 pair = {7, -8};");
  using Bytes = std::vector<uint8_t>;
  expect(elements_of<uint8_t>(module.variables.at(0)) == Bytes{104, 105, 255, 127, 0, 0}, "text");
  expect(elements_of<uint32_t>(module.variables.at(1)) == std::vector<uint32_t>{0xDEADBEEF}, "one");
  expect(elements_of<float>(module.variables.at(2)) ==
             std::vector<float>{1.0f, -1.0f, 1.5f, 2.0f, -0.25f},
         "floats");
  expect(elements_of<double>(module.variables.at(3)) == std::vector<double>{1.0, -3.0}, "doubles");
  expect(elements_of<int32_t>(module.variables.at(4)) == std::vector<int32_t>{1, 0, 2, 3, 0, 0},
         "rows");
  expect(elements_of<int64_t>(module.variables.at(5)) == std::vector<int64_t>{7, -8}, "pair");
}

TEST(parse_reads_registers_in_ranges_and_single) {
  const Function function =
      parse(std::string(kHeader) +
            ".entry k() { .reg .b32 %r<3>, x; .reg .f16x2 $h; .reg .b128 q; }")
          .functions.at(0);
  const std::vector<std::pair<std::string, Type>> wanted = {
      {"%r0", Type::kB32}, {"%r1", Type::kB32},  {"%r2", Type::kB32},
      {"x", Type::kB32},   {"$h", Type::kF16x2}, {"q", Type::kB128}};
  expect(function.registers.size() == wanted.size(), "registers ", function.registers.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    expect(function.registers.at(i).name == wanted[i].first, "name ", wanted[i].first);
    expect(function.registers.at(i).type == wanted[i].second, "type of ", wanted[i].first);
  }
}

TEST(parse_knows_every_type) {
  const std::pair<const char*, int> types[] = {
      {"b8", 1},  {"b16", 2},  {"b32", 4}, {"b64", 8},   {"b128", 16}, {"u8", 1},  {"u16", 2},
      {"u32", 4}, {"u64", 8},  {"s8", 1},  {"s16", 2},   {"s32", 4},   {"s64", 8}, {"f16", 2},
      {"f32", 4}, {"bf16", 2}, {"f64", 8}, {"f16x2", 4}, {"bf16x2", 4}};
  for (const auto& [name, size] : types) {
    const Module module = parse_module(".global ." + std::string(name) + " v;");
    expect(size_of(module.variables.at(0).type) == size, "size of ", name);
  }
  expect(size_of(parse_body("").registers.at(kFirstP).type) == 1, "size of pred");
}

TEST(parse_gives_registers_of_inner_scopes_their_own_numbers) {
  const Function function = parse_body(
      "{ .reg .pred p; .reg .b32 %r1; mov.b32 %r1, 1; @p ret; }\n"
      "{ .reg .pred p; mov.b32 %r1, 2; @!p ret; { .reg .b32 p; mov.b32 p, 3; } @p ret; }");
  const std::vector<Statement>& statements = function.statements;
  expect(statements.size() == 6, "statements ", statements.size());
  const int inner_r1 = statements.at(0).operands.at(0).index;
  expect(inner_r1 != 1, "the inner %r1 is another register");
  expect(is_register(statements.at(2).operands.at(0), 1), "the outer %r1 is back");
  const int first_p = statements.at(1).guard;
  const int second_p = statements.at(3).guard;
  expect(first_p != second_p && !statements.at(1).guard_negated, "each scope has a p");
  expect(statements.at(3).guard_negated, "negated");
  expect(statements.at(5).guard == second_p, "p is back after the innermost scope");
  const auto name = [&](int i) { return function.registers.at(static_cast<size_t>(i)).name; };
  expect(name(first_p) == "p" && name(second_p) == "p@2", "names ", name(second_p));
  expect(name(statements.at(4).operands.at(0).index) == "p@3", "the third p");
  expect(name(inner_r1) == "%r1@2", "name ", name(inner_r1));
}

TEST(parse_gives_variables_of_inner_scopes_their_own_names) {
  const Module module = parse_module(
      ".shared .b32 s;\n.entry k() { .reg .b64 a; .local .align 16 .b8 depot[64];\n"
      "mov.b64 a, s;\n{ .shared .b32 s[2]; mov.b64 a, s+4; }\n{ .param .b32 s; st.param.b32 [s], "
      "1; }"
      "\nmov.b64 a, depot; }");
  const Function& function = module.functions.at(0);
  expect(function.variables.size() == 3, "variables ", function.variables.size());
  expect(function.variables.at(0).space == Space::kLocal && function.variables.at(0).align == 16 &&
             function.variables.at(0).size == 64,
         "depot");
  expect(function.variables.at(1).name == "s@2" && function.variables.at(1).size == 8, "the array");
  expect(function.variables.at(2).space == Space::kParam, "an argument of a call");
  const std::vector<Statement>& statements = function.statements;
  expect(is_variable(statements.at(0).operands.at(1), "s"), "of the module");
  expect(is_variable(statements.at(1).operands.at(1), "s@2", 4), "of the first scope");
  expect(is_variable(statements.at(2).operands.at(0).elements.at(0), "s@3"), "of the second");
  expect(is_variable(statements.at(3).operands.at(1), "depot"), "depot keeps its name");
}

TEST(parse_splits_modifiers_but_not_at_two_colons) {
  const Statement statement =
      parse_statement("cp.async.cg.shared::cta.global.L2::128B [%r1], [%rd1], 16;");
  using Strings = std::vector<std::string>;
  expect(statement.opcode == "cp", "opcode ", statement.opcode);
  expect(statement.modifiers == Strings{"async", "cg", "shared::cta", "global", "L2::128B"},
         "modifiers");
  const Statement bulk = parse_statement("x.128x256b.mbarrier::complete_tx::bytes.m16n8k16.4x;");
  expect(bulk.modifiers == Strings{"128x256b", "mbarrier::complete_tx::bytes", "m16n8k16", "4x"},
         "modifiers that start with a digit, or have two parts");
}

TEST(parse_reads_guards) {
  const Statement taken = parse_statement("@%p1 ret;");
  const Statement negated = parse_statement("@!%p2 ret;");
  const Statement always = parse_statement("ret;");
  expect(taken.guard == kFirstP + 1 && !taken.guard_negated, "guard ", taken.guard);
  expect(negated.guard == kFirstP + 2 && negated.guard_negated, "guard ", negated.guard);
  expect(always.guard == -1 && always.operands.empty(), "no guard");
}

TEST(parse_reads_integers) {
  const std::pair<const char*, uint64_t> numbers[] = {{"0", 0},
                                                      {"42", 42},
                                                      {"-1", UINT64_MAX},
                                                      {"0x1F", 31},
                                                      {"0XffffFFFFffffFFFF", UINT64_MAX},
                                                      {"-0x10", uint64_t{0} - 16},
                                                      {"0b101", 5},
                                                      {"017", 15},
                                                      {"0U", 0},
                                                      {"7U", 7},
                                                      {"0x8U", 8},
                                                      {"18446744073709551615", UINT64_MAX},
                                                      {"-9223372036854775808", uint64_t{1} << 63},
                                                      {"WARP_SZ", 32}};
  for (const auto& [text, value] : numbers) {
    const Operand operand = parse_operand(text);
    expect(operand.kind == OperandKind::kInteger && operand.value == value, text);
  }
}

TEST(parse_reads_floats) {
  const Operand single = parse_operand("0f3fC00000");
  expect(single.kind == OperandKind::kFloat32 && single.value == 0x3FC00000, "0f");
  const Operand negative = parse_operand("-0f3F800000");
  expect(negative.kind == OperandKind::kFloat32 && negative.value == 0xBF800000, "-0f");
  const Operand wide = parse_operand("0d3FF8000000000000");
  expect(wide.kind == OperandKind::kFloat64 && wide.value == 0x3FF8000000000000, "0d");
  const std::pair<const char*, double> decimals[] = {{"1.5", 1.5},       {"-0.25", -0.25},
                                                     {"2.5e-3", 2.5e-3}, {"1E+3", 1e3},
                                                     {"3e2", 3e2},       {"0.5", 0.5}};
  for (const auto& [text, value] : decimals) {
    const Operand operand = parse_operand(text);
    expect(operand.kind == OperandKind::kFloat64 && operand.value == std::bit_cast<uint64_t>(value),
           text);
  }
}

TEST(parse_reads_special_registers) {
  for (const char* name :
       {"%tid.x", "%ntid.y", "%ctaid.z", "%nctaid.w", "%laneid", "%warpid", "%clock64", "%envreg31",
        "%dynamic_smem_size", "%lanemask_lt", "%globaltimer", "%cluster_ctarank", "%smid"}) {
    const Operand operand = parse_operand(name);
    expect(operand.kind == OperandKind::kSpecial && operand.name == name, name);
  }
}

TEST(parse_reads_addresses) {
  const std::pair<const char*, int64_t> addresses[] = {{"[%rd1]", 0},
                                                       {"[%rd1+16]", 16},
                                                       {"[%rd1+-16]", -16},
                                                       {"[%rd1-4]", -4},
                                                       {"[ %rd1 + 0x10 ]", 16}};
  for (const auto& [text, offset] : addresses) {
    const Operand operand = parse_operand(text);
    expect(operand.kind == OperandKind::kAddress && operand.elements.size() == 1, text);
    expect(is_register(operand.elements.at(0), kFirstRd + 1) && operand.offset == offset, text);
  }
  const Operand parameter = parse_operand("[input+4]");
  expect(is_variable(parameter.elements.at(0), "input") && parameter.offset == 4, "a parameter");
  const Operand fixed = parse_operand("[64]");
  expect(fixed.elements.at(0).kind == OperandKind::kInteger && fixed.elements.at(0).value == 64,
         "a number");
  const Operand tensor = parse_operand("[%rd0, {%r1, %r2}]");
  expect(tensor.elements.size() == 2 && tensor.elements.at(1).kind == OperandKind::kVector,
         "coordinates of a tensor");
}

TEST(parse_reads_addresses_of_variables) {
  expect(is_variable(parse_operand("n"), "n"), "n");
  expect(is_variable(parse_operand("n+8"), "n", 8), "n+8");
  expect(is_variable(parse_operand("n-8"), "n", -8), "n-8");
}

TEST(parse_reads_vectors_pairs_and_sinks) {
  const Statement load = parse_statement("ld.global.v4.b32 {%r1, _, %r3,%r4}, [%rd1];");
  const Operand& vector = load.operands.at(0);
  expect(vector.kind == OperandKind::kVector && vector.elements.size() == 4, "a vector");
  expect(is_register(vector.elements.at(3), 4), "its last element");
  expect(vector.elements.at(1).kind == OperandKind::kSink, "its sink");
  const Statement compare = parse_statement("setp.lt.and.s32 %p1|%p2, %r1, -1, !%p3;");
  const Operand& pair = compare.operands.at(0);
  expect(pair.kind == OperandKind::kPair && pair.elements.size() == 2, "a pair");
  expect(is_register(pair.elements.at(0), kFirstP + 1) &&
             is_register(pair.elements.at(1), kFirstP + 2),
         "its registers");
  expect(is_register(compare.operands.at(3), kFirstP + 3) && compare.operands.at(3).negated,
         "a negated predicate");
  const Statement one = parse_statement("setp.lt.s32 _|%p2, %r1, 2;");
  expect(one.operands.at(0).elements.at(0).kind == OperandKind::kSink, "a sink of a pair");
}

TEST(parse_finds_labels_before_and_behind) {
  const Function function =
      parse_body("$L0: @%p1 bra $L2;\nbra.uni $L0;\n$L1:\n$L2: ret;\nbra $L3;\nbra $L1;\n$L3:");
  const std::vector<Statement>& statements = function.statements;
  expect(is_label(statements.at(0).operands.at(0), 2), "forward");
  expect(is_label(statements.at(1).operands.at(0), 0), "back");
  expect(is_label(statements.at(3).operands.at(0), 5), "behind the last statement");
  expect(is_label(statements.at(4).operands.at(0), 2), "two labels of one statement");
}

TEST(parse_keeps_labels_of_inner_scopes_apart) {
  const std::string loop = "{ .reg .pred p; wait: @p bra done; bra wait; done: }\n";
  const Function function = parse_body(loop + loop + "{ bra done; }\nret;\ndone: ret;");
  const int targets[] = {2, 0, 4, 2, 6};
  for (size_t i = 0; i < 5; ++i) {
    expect(is_label(function.statements.at(i).operands.at(0), targets[i]), "branch ", i);
  }
}

TEST(parse_replaces_a_table_of_targets_by_its_labels) {
  const Function function =
      parse_body("table: .branchtargets one, two;\nbrx.idx %r1, table;\none: ret;\ntwo: exit;");
  const Operand& table = function.statements.at(0).operands.at(1);
  expect(table.kind == OperandKind::kVector && table.elements.size() == 2, "a list");
  expect(is_label(table.elements.at(0), 1) && is_label(table.elements.at(1), 2), "its targets");
}

TEST(parse_reads_calls) {
  const Module module = parse_module(
      ".extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);\n"
      ".func (.param .b32 result) twice(.param .b32 x) { st.param.b32 [result], 2; ret; }\n"
      ".entry k() { .reg .b32 %r1; .reg .b64 %rd1;\n{ .param .b64 a; .param .b32 r;\n"
      "call.uni (r), vprintf, (a, a);\n"
      "type : .callprototype (.param .b32 _) _ (.param .b64 _);\ncall (r), %rd1, (a), type; } }");
  expect(module.functions.size() == 2, "a declaration is no function");
  expect(module.functions.at(0).variables.at(0).name == "result", "where the result goes");
  const Statement& call = module.functions.at(1).statements.at(0);
  expect(call.opcode == "call" && call.operands.size() == 3, "operands ", call.operands.size());
  expect(is_variable(call.operands.at(1), "vprintf"), "the function");
  expect(
      call.operands.at(2).kind == OperandKind::kVector && call.operands.at(2).elements.size() == 2,
      "the arguments");
  expect(is_label(module.functions.at(1).statements.at(1).operands.at(3), 1), "a prototype");
}

TEST(parse_reads_a_matrix_instruction) {
  const Statement statement = parse_statement(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0,%f1,%f2,%f3}, "
      "{%r0,%r1,%r2,%r3}, {%r4,%r5}, {%f0,%f1,%f2,%f3};");
  expect(statement.operands.size() == 4, "operands ", statement.operands.size());
  expect(statement.operands.at(2).elements.size() == 2, "b");
  expect(statement.modifiers.size() == 9, "modifiers ", statement.modifiers.size());
}

TEST(parse_accepts_empty_statements) {
  expect(parse_body(";;ret;;").statements.size() == 1, "one statement");
}

TEST(parse_refuses_a_module_without_its_head) {
  expect_error("", "line 1: expected `.version`, got the end of the text");
  expect_error(".version 9.0\n.entry", "line 2: expected `.target`, got `.entry`");
  expect_error(".version 9.0\n.target sm_80\n.address_size 32\n", "line 3: expected 64, got `32`");
  expect_error(
      std::string(kHeader) + "\nret;",
      "line 5: expected a function, a variable or another directive of a module, got `ret`");
}

TEST(parse_names_the_line_and_what_it_expected) {
  expect_body_error("ret;\nadd.s32 %r1, %r2 %r3;", "line 7: expected `,` or `;`, got `%r3`");
  expect_body_error("\n\nmov.b32 %r1, ;", "line 8: expected an operand, got `;`");
  expect_body_error("ld.b32 %r1, [%rd1;", "line 6: expected `+`, `,` or `]`, got `;`");
  expect_body_error("ld.b32 %r1, [%rd1+%r2];", "line 6: expected a number of bytes, got `%r2`");
  expect_body_error("mov.b32 {%r1 %r2}, %rd1;", "line 6: expected `,` or `}`, got `%r2`");
  expect_body_error("@5 ret;", "line 6: expected an operand, got `5`");
  expect_body_error("12;", "line 6: expected an instruction, got `12`");
  expect_body_error(".global .b32 x;",
                    "line 6: expected an instruction or .reg, .shared, .local, .param, .loc, "
                    ".pragma, got `.global`");
}

TEST(parse_refuses_names_that_nothing_declares) {
  expect_body_error("\nmov.b32 %r1, %r77;", "line 7: expected a name that is declared, got `%r77`");
  expect_body_error("bra nowhere;", "line 6: expected a name that is declared, got `nowhere`");
  expect_body_error("{ inner: ret; }\nbra inner;",
                    "line 7: expected a name that is declared, got `inner`");
  expect_body_error("ld.b32 %r1, [nothing];",
                    "line 6: expected a register or variable that is declared, got `nothing`");
  expect_body_error("@%q ret;", "line 6: expected a predicate that is declared, got `%q`");
  expect_body_error("{ .reg .b32 x; }\nmov.b32 x, 1;",
                    "line 7: expected a name that is declared, got `x`");
}

TEST(parse_refuses_names_that_are_declared_twice) {
  expect_body_error(".reg .b32 %r3;",
                    "line 6: expected a register that isn't declared yet, got `%r3`");
  expect_body_error("a: ret;\na: ret;",
                    "line 7: expected a label that isn't declared yet, got `a`");
  expect_body_error(".shared .b32 input;",
                    "line 6: expected a variable that isn't declared yet, got `input`");
  expect_error(std::string(kHeader) + ".global .b32 g;\n.global .b32 g;",
               "line 5: expected a variable that isn't declared yet, got `g`");
}

TEST(parse_refuses_numbers_that_are_none) {
  for (const char* text : {"0f3F80", "0d3FF0", "0x", "0xG", "18446744073709551616", "09", "0b2",
                           "12abc", "1.5U", "0f3F800000U"}) {
    expect_body_error("mov.b32 %r1, " + std::string(text) + ";",
                      "line 6: expected an operand, got `" + std::string(text) + "`");
  }
}

TEST(parse_refuses_initial_values_that_do_not_fit) {
  const auto refuses = [](const std::string& text, const std::string& message) {
    expect_error(kHeader + text, "line 4: expected " + message);
  };
  refuses(".global .b32 a[2] = {1, 2, 3};", "no more than 2 elements, got `3`");
  refuses(".global .b32 a[2][2] = {1, 2};", "`{`, got `1`");
  refuses(".global .u64 a = generic(b);",
          "a number (addresses are no initial values here), got `generic`");
  refuses(".global .u32 a = 1.5;", "a number of the variable's type, got `1.5`");
  refuses(".global .b32 a[] = {1};", "a number of elements before the initial values, got `{`");
}

TEST(parse_refuses_text_that_ends_too_early) {
  const std::string end = ", got the end of the text";
  expect_error(std::string(kHeader) + ".entry k() {\nret;",
               "line 5: expected an instruction" + end);
  expect_error(std::string(kHeader) + "/* ret;\n", "line 4: expected a closing `*/`" + end);
  expect_error(std::string(kHeader) + ".section .debug {\n{ }\n", "line 6: expected `}`" + end);
  expect_error(std::string(kHeader) + ".file 1 \"a\n\"",
               "line 4: expected a closing `\"`, got the end of the line");
  expect_error(std::string(kHeader) + "#include", "line 4: expected PTX, got `#`");
}

}  // namespace ptx::test
