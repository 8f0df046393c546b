// A function of a module, compiled: every instruction a function to call and rows of registers.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "floats.h"
#include "module.h"
#include "races.h"
#include "tensor_core.h"

namespace ptx {

class Warp;
struct Instruction;

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

// A row of the register file: one register of all lanes, its bits in the low end of each. Constants
// and special registers that never change have rows of their own, filled when a warp starts.
using Row = uint16_t;
constexpr Row kNoRow = 0xFFFF;

// What the machine does with an instruction beyond calling `run`.
enum class Control : uint8_t {
  kNone,
  kBranch,  // to `target`
  kExit,    // exit, and ret of an entry
  kTrap,
  kBarrier,      // of the block: bar, barrier
  kWarpBarrier,  // bar.warp.sync
};

// What bar.red makes of the predicates of all threads.
enum BarrierReduction : uint8_t { kBarrierCount, kBarrierAnd, kBarrierOr };

struct Instruction {
  void (*run)(Warp& warp, const Instruction& instruction, uint32_t mask) = nullptr;
  Control control = Control::kNone;
  Row guard = kNoRow;
  bool guard_negated = false;

  // All live lanes of the warp have to execute it together (.aligned), or all lanes of the mask in
  // `members` have to.
  bool is_aligned = false;
  Row members = kNoRow;

  uint8_t results = 0;  // rows in `to`
  uint8_t sources = 0;  // rows in `from`
  Row to[kMaxFragment] = {};
  Row from[2 * kMaxFragment + 4] = {};

  // What modifiers say; each is used by the instructions that have it.
  Arithmetic how;
  Space space = Space::kGeneric;
  uint8_t bytes = 0;     // of one element of memory
  uint8_t elements = 1;  // of a vector in memory
  bool is_signed = false;
  uint8_t choice = 0;  // a variant: of a comparison, a shuffle, an atomic, ...
  uint8_t choice2 = 0;
  bool flag = false;  // a second result, a transposition, a negated operand, ...
  AccessKind access = {Access::kRead};
  int64_t offset = 0;   // of an address, or an immediate
  uint32_t target = 0;  // of a branch
  uint32_t table = 0;   // of lop3
  Mma mma = {};

  uint32_t opcode = 0;  // into Program::opcodes
  uint32_t number = 0;  // of the instruction in its program
  int line = 0;         // of the text
};

// A row that is the same in all warps, or depends on where the thread stands.
enum class Special : uint8_t {
  kConstant,
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneid,
  kWarpid,
  kNwarpid,
  kLanemaskEq,
  kLanemaskLt,
  kLanemaskLe,
  kLanemaskGt,
  kLanemaskGe,
  kGridid,
  kSmid,
  kNsmid,
  kDynamicSharedSize,
  kTotalSharedSize,
};

struct FilledRow {
  Row row;
  Special special;
  uint64_t value;  // of a constant
};

struct ProgramParameter {
  std::string name;
  uint64_t offset;
  uint64_t size;
};

struct Program {
  std::string name;
  std::vector<Instruction> instructions;
  std::vector<std::string> opcodes;  // full names: ld.global.v4.u32
  std::vector<FilledRow> filled;
  int rows = 0;
  std::vector<ProgramParameter> parameters;
  uint64_t parameter_bytes = 0;
  uint64_t static_shared_bytes = 0;  // dynamic shared memory begins there
  uint64_t local_bytes = 0;          // per thread
  int max_threads = 0;
  int required_threads = 0;
};

// An instruction that the simulator doesn't know: names it and its line.
class UnsupportedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Where the variables of the module stand in global memory.
struct GlobalSymbol {
  std::string name;
  uint64_t address;
};

Program compile(const Module& module, const Function& function,
                const std::vector<GlobalSymbol>& globals);

}  // namespace ptx
