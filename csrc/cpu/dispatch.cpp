#include "dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include <cstdlib>

namespace marlin::cpu {
namespace {

struct Entry {
  const Path* path;
  bool (*can_run)(const CpuFeatures& features);
  const char* needs;
};

// Best first.
constexpr Entry kPaths[] = {
#if defined(__x86_64__)
    {&kAmxPath, [](const CpuFeatures& f) { return f.amx_bf16; },
     "AMX with BF16 and INT8, permitted by Linux"},
    {&kAvx512Bf16Path, [](const CpuFeatures& f) { return f.avx512_bf16; },
     "AVX-512 with VNNI and BF16"},
    {&kAvx512VnniPath, [](const CpuFeatures& f) { return f.avx512_vnni; }, "AVX-512 with VNNI"},
    {&kAvx512Path, [](const CpuFeatures& f) { return f.avx512; }, "AVX-512 F, BW, DQ and VL"},
    {&kAvxVnniPath, [](const CpuFeatures& f) { return f.avx_vnni; },
     "AVX2 with FMA, F16C and AVX-VNNI"},
    {&kAvx2Path, [](const CpuFeatures& f) { return f.avx2; }, "AVX2 with FMA and F16C"},
#elif defined(__aarch64__)
    {&kNeonDotprodPath, [](const CpuFeatures& f) { return f.neon_dotprod; },
     "Advanced SIMD with dot products of bytes"},
    {&kNeonPath, [](const CpuFeatures& f) { return f.neon; }, "Advanced SIMD"},
#endif
    {&kGenericPath, [](const CpuFeatures&) { return true; }, "nothing"},
};

std::string known_names() {
  std::string names;
  for (const Entry& entry : kPaths) {
    names += (names.empty() ? "`" : ", `") + std::string(entry.path->name) + "`";
  }
  return names;
}

#if defined(__x86_64__)
// What not every compiler's run-time knows by name. Of leaves that the CPU lacks all bits are 0.
struct CpuidLeaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidLeaf read_cpuid(unsigned leaf, unsigned subleaf) {
  CpuidLeaf found;
  __get_cpuid_count(leaf, subleaf, &found.eax, &found.ebx, &found.ecx, &found.edx);
  return found;
}

bool has_f16c() { return (read_cpuid(1, 0).ecx & bit_F16C) != 0; }

bool has_avx_vnni() {
  constexpr unsigned kAvxVnni = 1u << 4;
  return (read_cpuid(7, 1).eax & kAvxVnni) != 0;
}

bool has_all(uint64_t bits, uint64_t wanted) { return (bits & wanted) == wanted; }

// Whether the CPU has AMX with BF16 and INT8, the system saves its registers, and this process may
// use them.
bool may_use_amx() {
#if defined(__linux__)
  constexpr unsigned kBf16TileInt8 = 1u << 22 | 1u << 24 | 1u << 25;
  constexpr uint64_t kTileConfig = 1u << 17;
  constexpr uint64_t kTileData = 1u << 18;
  if (!has_all(read_cpuid(1, 0).ecx, bit_OSXSAVE)) return false;
  if (!has_all(read_cpuid(7, 0).edx, kBf16TileInt8)) return false;
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if (!has_all(low, kTileConfig | kTileData)) return false;
  // The first use of tiles makes what the kernel saves of a thread 8 KiB longer, so it gives them
  // to those who ask.
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileDataNumber = 18;         // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileDataNumber) == 0;
#else
  return false;
#endif
}
#elif defined(__aarch64__) && defined(__linux__)
// The bit of the kernel's AT_HWCAP, whose name older headers lack.
bool has_dotprod() {
  constexpr unsigned long kDotProducts = 1ul << 20;
  return (getauxval(AT_HWCAP) & kDotProducts) != 0;
}
#elif defined(__aarch64__) && defined(__APPLE__)
bool has_dotprod() {
  int value = 0;
  size_t bytes = sizeof(value);
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &bytes, nullptr, 0) == 0 &&
         value != 0;
}
#elif defined(__aarch64__)
bool has_dotprod() { return false; }
#endif

}  // namespace

CpuFeatures detect_cpu() {
  CpuFeatures features;
#if defined(__x86_64__)
  // The compiler's run-time reads cpuid and xgetbv, so a system that does not save ymm, or zmm,
  // says no.
  __builtin_cpu_init();
  features.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  features.avx_vnni = features.avx2 && has_avx_vnni();
  features.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  features.avx512_vnni = features.avx512 && __builtin_cpu_supports("avx512vnni");
  features.avx512_bf16 = features.avx512_vnni && __builtin_cpu_supports("avx512bf16");
  features.amx_bf16 = features.avx512_bf16 && may_use_amx();
#elif defined(__aarch64__)
  features.neon = true;  // a part of the architecture
  features.neon_dotprod = has_dotprod();
#endif
  return features;
}

std::vector<std::string> available_paths(const CpuFeatures& features) {
  std::vector<std::string> names;
  for (const Entry& entry : kPaths) {
    if (entry.can_run(features)) names.emplace_back(entry.path->name);
  }
  return names;
}

Selection select_path(const CpuFeatures& features, const char* forced) {
  if (forced == nullptr || *forced == '\0') {
    for (const Entry& entry : kPaths) {
      if (!entry.can_run(features)) continue;
      return {entry.path, std::string("the best one for a CPU with ") + entry.needs, false};
    }
  }
  const std::string name = forced == nullptr ? "" : forced;
  for (const Entry& entry : kPaths) {
    if (name != entry.path->name) continue;
    if (entry.can_run(features)) return {entry.path, "forced by MARLIN_CPU_KERNEL", true};
    return {nullptr,
            "`MARLIN_CPU_KERNEL`: `" + name + "` needs " + entry.needs + ", which this CPU lacks",
            true};
  }
  return {nullptr, "`MARLIN_CPU_KERNEL`: expected one of " + known_names() + ", got `" + name + "`",
          true};
}

const Selection& selected_path() {
  static const Selection selection = select_path(detect_cpu(), std::getenv("MARLIN_CPU_KERNEL"));
  return selection;
}

const Microkernel* microkernel_of(const Path& path, Activation activation) {
  switch (activation) {
    case Activation::kBFloat16:
      return path.bfloat16;
    case Activation::kInt16:
      return path.int16;
    case Activation::kInt8:
      break;
  }
  return path.int8;
}

Activation precise_activation(const Path& path, Dtype dtype, int bits) {
  const bool as_it_is = dtype == Dtype::kBFloat16 && path.bfloat16 != nullptr &&
                        (bits == 4 || path.bfloat16->takes_bytes);
  return as_it_is ? Activation::kBFloat16 : Activation::kInt16;
}

}  // namespace marlin::cpu
