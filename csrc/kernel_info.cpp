// What ops.py asks about the library itself: a plain C structure, since the stable ABI has no such
// question. Its mirror is _NativeKernelInfo in python/marlin/ops.py.

#include <string>

#include "cpu/dispatch.h"

extern "C" {

struct MarlinKernelInfo {
  const char* kernel;         // null: the forced one cannot run
  const char* reason;         // why this one, or why none
  const char* available;      // names, best first, separated by commas
  const char* torch_version;  // of the headers that the library was built with
  int forced;                 // 1: MARLIN_CPU_KERNEL is set
};

[[gnu::visibility("default")]] const MarlinKernelInfo* marlin_cpu_kernel_info() {
  using marlin::cpu::available_paths;
  using marlin::cpu::detect_cpu;
  using marlin::cpu::selected_path;
  static const std::string available = [] {
    std::string names;
    for (const std::string& name : available_paths(detect_cpu())) {
      names += (names.empty() ? "" : ",") + name;
    }
    return names;
  }();
  static const MarlinKernelInfo info = {
      selected_path().path == nullptr ? nullptr : selected_path().path->name,
      selected_path().reason.c_str(),
      available.c_str(),
      MARLIN_TORCH_VERSION,
      selected_path().forced ? 1 : 0,
  };
  return &info;
}

}  // extern "C"
