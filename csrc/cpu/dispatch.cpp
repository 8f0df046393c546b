#include "dispatch.h"

#include <cstdlib>

namespace marlin::cpu {
namespace {

struct Entry {
  const Microkernel* kernel;
  bool (*can_run)(const CpuFeatures& features);
  const char* needs;
};

// Best first.
constexpr Entry kKernels[] = {
#if defined(__x86_64__)
    {&kAvx512Bf16Microkernel, [](const CpuFeatures& f) { return f.avx512_bf16; },
     "AVX-512 with BF16"},
    {&kAvx512Microkernel, [](const CpuFeatures& f) { return f.avx512; },
     "AVX-512 F, BW, DQ and VL"},
#endif
    {&kGenericMicrokernel, [](const CpuFeatures&) { return true; }, "nothing"},
};

std::string known_names() {
  std::string names;
  for (const Entry& entry : kKernels) {
    names += (names.empty() ? "`" : ", `") + std::string(entry.kernel->name) + "`";
  }
  return names;
}

}  // namespace

CpuFeatures detect_cpu() {
  CpuFeatures features;
#if defined(__x86_64__)
  // The compiler's run-time reads cpuid and xgetbv, so a system that does not save zmm says no.
  __builtin_cpu_init();
  features.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  features.avx512_bf16 = features.avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return features;
}

std::vector<std::string> available_kernels(const CpuFeatures& features) {
  std::vector<std::string> names;
  for (const Entry& entry : kKernels) {
    if (entry.can_run(features)) names.emplace_back(entry.kernel->name);
  }
  return names;
}

Selection select_kernel(const CpuFeatures& features, const char* forced) {
  if (forced == nullptr || *forced == '\0') {
    for (const Entry& entry : kKernels) {
      if (!entry.can_run(features)) continue;
      return {entry.kernel, std::string("the best one for a CPU with ") + entry.needs, false};
    }
  }
  const std::string name = forced == nullptr ? "" : forced;
  for (const Entry& entry : kKernels) {
    if (name != entry.kernel->name) continue;
    if (entry.can_run(features)) return {entry.kernel, "forced by MARLIN_CPU_KERNEL", true};
    return {nullptr,
            "`MARLIN_CPU_KERNEL`: `" + name + "` needs " + entry.needs + ", which this CPU lacks",
            true};
  }
  return {nullptr, "`MARLIN_CPU_KERNEL`: expected one of " + known_names() + ", got `" + name + "`",
          true};
}

const Selection& selected_kernel() {
  static const Selection selection = select_kernel(detect_cpu(), std::getenv("MARLIN_CPU_KERNEL"));
  return selection;
}

}  // namespace marlin::cpu
