// The path for AVX-512 F, BW, DQ, VL, VNNI and BF16. Compiled with flags of its own.

#include "isa_avx512_bf16.h"
#include "kernel_finish.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {

const Microkernel kAvx512BFloat16 = microkernel<Avx512Bf16, BFloat16Format>(prepare_bfloat16);

const Path kAvx512Bf16Path = {"avx512_bf16", &kAvx512BFloat16, &kAvx512VnniInt16, &kAvx512VnniInt8,
                              finish<Avx512Vnni>};

}  // namespace marlin::cpu
