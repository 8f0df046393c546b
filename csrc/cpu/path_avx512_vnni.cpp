// The path for AVX-512 F, BW, DQ, VL and VNNI. Compiled with flags of its own.

#include "isa_avx512_vnni.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

using Int16 = Int16Format<Avx512Vnni>;
using Int8 = Int8Format<Avx512Vnni>;

}  // namespace

const Microkernel kAvx512VnniInt16 =
    microkernel<Avx512Vnni, Int16>(prepare_integers<Avx512Vnni, Int16>, kNeverDecodeOnce, 96);
const Microkernel kAvx512VnniInt8 =
    microkernel<Avx512Vnni, Int8>(prepare_integers<Avx512Vnni, Int8>, kNeverDecodeOnce, 64);

const Path kAvx512VnniPath = {"avx512_vnni", nullptr, &kAvx512VnniInt16, &kAvx512VnniInt8,
                              finish<Avx512Vnni>};

}  // namespace marlin::cpu
