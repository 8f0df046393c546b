// A PTX module as its text says it: what parse.h makes and program.h compiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ptx {

enum class Type : uint8_t {
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kB128,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kF16x2,
  kBf16,
  kBf16x2,
  kF32,
  kF64,
};
int size_of(Type type);  // bytes; 1 of a predicate

enum class Space : uint8_t { kGeneric, kGlobal, kShared, kLocal, kConst, kParam };

// A variable: of the module, of a function, or a parameter.
struct Variable {
  std::string name;
  Space space;
  Type type;
  uint64_t align;  // bytes
  uint64_t size;   // bytes; 0 of `extern .shared .b8 name[]`
  bool is_extern = false;
  std::vector<std::byte> initial;  // of an initialised one: `size` bytes; else empty
};

struct Register {
  std::string name;  // with its %
  Type type;
};

enum class OperandKind : uint8_t {
  kRegister,  // `index` into Function::registers, `negated` of `!%p`
  kSpecial,   // a special register, `name`: %tid.x
  kInteger,   // `value`: its bits
  kFloat32,   // 0f3F800000: the bits in `value`
  kFloat64,   // 0d..., and decimal floating constants
  kLabel,     // a branch target: `index` into Function::statements, or their number: the end
  kVariable,  // the address of a variable, `name`, plus `offset`
  kAddress,   // [..]: `base` register, variable or integer, plus `offset`
  kVector,    // {a, b, c, d}, the arguments of a call, the labels of brx.idx: `elements`
  kSink,      // `_`: a result that nobody wants
  kPair,      // %p|%q: two destinations, in `elements`
};

struct Operand {
  OperandKind kind;
  int32_t index = -1;
  bool negated = false;
  uint64_t value = 0;
  int64_t offset = 0;
  std::string name;
  // kAddress: one element, its base; of a tensor a second, {coordinates}. kVector, kPair: the
  // parts.
  std::vector<Operand> elements;
};

// One instruction: `@!%p1 ld.global.v4.u32 {...}, [%rd1+16];`
struct Statement {
  std::string opcode;                  // ld
  std::vector<std::string> modifiers;  // global v4 u32; `.` parts in their order, with `::` kept
  std::vector<Operand> operands;
  int32_t guard = -1;  // register of the predicate
  bool guard_negated = false;
  int line = 0;  // of the text, from 1
};

struct Function {
  std::string name;
  bool is_entry = false;
  std::vector<Variable> parameters;
  std::vector<Variable> variables;  // .shared and .local of the body, .param for results and calls
  std::vector<Register> registers;
  std::vector<Statement> statements;
  int max_threads = 0;       // .maxntid x y z multiplied, or 0
  int required_threads = 0;  // .reqntid, likewise
};

struct Module {
  std::string version;  // 9.0
  std::string target;   // sm_80
  std::vector<Variable> variables;
  std::vector<Function> functions;
};

}  // namespace ptx
