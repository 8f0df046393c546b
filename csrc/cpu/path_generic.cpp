// The path for any CPU.

#define MARLIN_ROLLED_TILES
#include "isa_generic.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

using Int16 = Int16Format<Generic>;
using Int8 = Int8Format<Generic>;

constexpr Microkernel kInt16 = microkernel<Generic, Int16>(prepare_integers<Generic, Int16>);
constexpr Microkernel kInt8 = microkernel<Generic, Int8>(prepare_integers<Generic, Int8>);

}  // namespace

const Path kGenericPath = {"generic", nullptr, &kInt16, &kInt8, finish<Generic>};

}  // namespace marlin::cpu
