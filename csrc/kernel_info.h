// What a native library says of itself when kernel_info.py asks: a plain C structure, since the
// stable ABI has no such question. Its mirror is _NativeKernelInfo in python/marlin/kernel_info.py.
#pragma once

extern "C" {

struct MarlinKernelInfo {
  const char* kernel;         // null: the forced one cannot run
  const char* reason;         // why this one, or why none
  const char* available;      // names, best first, separated by commas
  const char* torch_version;  // of the headers that the library was built with
  int forced;                 // 1: MARLIN_CPU_KERNEL is set
  int oldest_architecture;    // of a GPU, ten times its compute capability; 0: a library of the CPU
};

}  // extern "C"
