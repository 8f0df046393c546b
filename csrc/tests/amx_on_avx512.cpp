// The path of AMX on emulated tiles, but with the vectors of the path itself. Compiled with the
// flags of cpu/path_avx512_bf16.cpp.

#include "../cpu/isa_avx512_bf16.h"
#include "../cpu/isa_avx512_vnni.h"
#include "../cpu/kernel_amx.h"
#include "../cpu/kernel_finish.h"
#include "../cpu/kernel_formats.h"
#include "emulated_tiles.h"

namespace marlin::test {
namespace {

using Int8 = cpu::Int8Format<cpu::Avx512Vnni>;

constexpr cpu::Microkernel kBFloat16 =
    cpu::microkernel_on_tiles<EmulatedTiles, cpu::Avx512Bf16, cpu::BFloat16Format>(
        cpu::prepare_bfloat16, nullptr);
constexpr cpu::Microkernel kInt8 = cpu::microkernel_on_tiles<EmulatedTiles, cpu::Avx512Vnni, Int8>(
    cpu::prepare_integers<cpu::Avx512Vnni, Int8>, nullptr);

}  // namespace

const cpu::Path kEmulatedAmxOnAvx512 = {"emulated_amx_on_avx512", &kBFloat16, nullptr, &kInt8,
                                        cpu::finish<cpu::Avx512Vnni>};

}  // namespace marlin::test
