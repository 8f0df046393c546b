// The path for AMX with BF16 and INT8, on top of AVX-512 with VNNI and BF16. Compiled with flags of
// its own. NOTE: compiled, and its kernel checked on emulated tiles (csrc/tests/test_amx.cpp);
// never run on a CPU with AMX.

#include "isa_avx512_bf16.h"
#include "isa_avx512_vnni.h"
#include "kernel_amx.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

// The instructions, one in each function. NOTE: not the compilers' intrinsics, because GCC's take
// the number of a tile as text only, and say of a load that it reads no memory, so that stores may
// move past it.
class HardwareTiles {
 public:
  explicit HardwareTiles(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
  // A thread that keeps tiles has 8 KiB more to save at each context switch.
  ~HardwareTiles() { asm volatile("tilerelease"); }
  HardwareTiles(const HardwareTiles&) = delete;
  HardwareTiles& operator=(const HardwareTiles&) = delete;

  template <int tile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  template <int tile>
  void load(const void* memory, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(memory), "r"(stride), "i"(tile)
                 : "memory");
  }
  template <int tile>
  void store(void* memory, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
                 :
                 : "r"(memory), "r"(stride), "i"(tile)
                 : "memory");
  }
  template <int sums, int a, int b>
  void dot_bfloat16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b));
  }
  template <int sums, int a, int b>
  void dot_signed_unsigned() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b));
  }
};

using Int8 = Int8Format<Avx512Vnni>;

constexpr Microkernel kBFloat16 = microkernel_on_tiles<HardwareTiles, Avx512Bf16, BFloat16Format>(
    prepare_bfloat16, &kAvx512BFloat16);
constexpr Microkernel kInt8 = microkernel_on_tiles<HardwareTiles, Avx512Vnni, Int8>(
    prepare_integers<Avx512Vnni, Int8>, &kAvx512VnniInt8);

}  // namespace

// Tiles know no 16-bit integers.
const Path kAmxPath = {"amx_bf16", &kBFloat16, &kAvx512VnniInt16, &kInt8, finish<Avx512Vnni>};

}  // namespace marlin::cpu
