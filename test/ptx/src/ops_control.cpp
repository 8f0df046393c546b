// Branches, barriers and the end.

#include "build.h"
#include "machine.h"

namespace ptx {
namespace {

void do_nothing(Warp& /*warp*/, const Instruction& /*i*/, uint32_t /*mask*/) {}

bool select_barrier(Builder& b) {
  Instruction& i = b.instruction();
  const bool is_barrier = b.statement().opcode == "barrier";
  if (!is_barrier && b.statement().opcode != "bar") return false;
  b.take("cta");
  if (b.take("warp")) {
    if (!b.take("sync")) return false;
    i.control = Control::kWarpBarrier;
    b.source(b.operand(0), Type::kB32);
    return true;
  }
  const bool reduces = b.take("red");
  const bool syncs = reduces || b.take("sync");
  if (!syncs && !b.take("arrive")) return false;
  i.control = Control::kBarrier;
  i.choice = syncs ? 0 : 1;
  // `bar` is short for `barrier.aligned`.
  i.is_aligned = b.take("aligned") || !is_barrier;
  size_t operands = b.operand_count();
  if (reduces) {
    if (!b.take("popc")) i.choice2 = b.take("and") ? kBarrierAnd : b.take("or") ? kBarrierOr : 0;
    b.take_type();
    b.result(b.operand(0));
    --operands;
  }
  for (size_t n = i.results; n < operands; ++n) b.source(b.operand(n), Type::kB32);
  if (reduces) {
    Operand predicate = b.operand(operands);
    i.flag = predicate.negated;
    predicate.negated = false;
    b.source(predicate, Type::kPred);
  }
  return true;
}

}  // namespace

bool select_control(Builder& b) {
  Instruction& i = b.instruction();
  const std::string& opcode = b.statement().opcode;
  if (opcode == "bra") {
    i.control = Control::kBranch;
    i.flag = b.take("uni");
    if (b.operand(0).kind != OperandKind::kLabel) b.refuse("expected a label");
    i.target = static_cast<uint32_t>(b.operand(0).index);
    return true;
  }
  if (opcode == "ret" || opcode == "exit") {
    b.take("uni");
    i.control = Control::kExit;
    return true;
  }
  if (opcode == "trap") {
    i.control = Control::kTrap;
    return true;
  }
  // What only hints at speed, or waits for other grids.
  if (opcode == "nanosleep" || opcode == "prefetch" || opcode == "prefetchu" ||
      opcode == "griddepcontrol" || opcode == "setmaxnreg" || opcode == "brkpt" ||
      opcode == "pmevent") {
    for (const std::string& modifier : b.statement().modifiers) b.take(modifier);
    i.run = do_nothing;
    return true;
  }
  return select_barrier(b);
}

}  // namespace ptx
