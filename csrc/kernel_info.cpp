// What kernel_info.py asks about the library of the CPU.

#include "kernel_info.h"

#include <string>

#include "cpu/dispatch.h"

extern "C" {

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
      .kernel = selected_path().path == nullptr ? nullptr : selected_path().path->name,
      .reason = selected_path().reason.c_str(),
      .available = available.c_str(),
      .torch_version = MARLIN_TORCH_VERSION,
      .forced = selected_path().forced ? 1 : 0,
      .oldest_architecture = 0,
  };
  return &info;
}

}  // extern "C"
