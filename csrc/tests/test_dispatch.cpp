// Which microkernel is chosen, for machines that this one may not be.

#include <algorithm>

#include "../cpu/dispatch.h"
#include "check.h"

namespace marlin::test {

using cpu::available_kernels;
using cpu::CpuFeatures;
using cpu::select_kernel;
using cpu::Selection;

MARLIN_TEST(a_machine_without_extensions_runs_generic) {
  const Selection selection = select_kernel(CpuFeatures{}, nullptr);
  expect(selection.kernel == &cpu::kGenericMicrokernel, "generic is chosen");
  expect(!selection.forced, "nothing is forced");
  expect(available_kernels(CpuFeatures{}) == std::vector<std::string>{"generic"}, "only generic");
}

MARLIN_TEST(an_empty_variable_forces_nothing) {
  expect(!select_kernel(CpuFeatures{}, "").forced, "empty is unset");
}

MARLIN_TEST(generic_can_be_forced_anywhere) {
  const Selection selection = select_kernel(CpuFeatures{true, true}, "generic");
  expect(selection.kernel == &cpu::kGenericMicrokernel && selection.forced, "generic is forced");
}

MARLIN_TEST(an_unknown_name_is_refused_with_the_known_ones) {
  const Selection selection = select_kernel(CpuFeatures{true, true}, "avx9000");
  expect(selection.kernel == nullptr, "no kernel");
  expect(selection.reason.find("avx9000") != std::string::npos, "got: ", selection.reason);
  expect(selection.reason.find("`generic`") != std::string::npos, "expected: ", selection.reason);
}

MARLIN_TEST(the_chosen_kernel_is_the_first_available_one) {
  const CpuFeatures here = cpu::detect_cpu();
  const std::vector<std::string> names = available_kernels(here);
  expect(names.back() == "generic", "generic is last");
  expect(select_kernel(here, nullptr).kernel->name == names.front(), "the first one runs");
  for (const std::string& name : names) {
    expect(select_kernel(here, name.c_str()).kernel->name == name, name, " can be forced");
  }
}

#if defined(__x86_64__)
MARLIN_TEST(avx512_needs_its_features) {
  expect(select_kernel({true, false}, nullptr).kernel == &cpu::kAvx512Microkernel, "F, BW, DQ, VL");
  expect(select_kernel({true, true}, nullptr).kernel == &cpu::kAvx512Bf16Microkernel, "BF16");
  const Selection selection = select_kernel({true, false}, "avx512_bf16");
  expect(selection.kernel == nullptr && selection.forced, "BF16 cannot be forced without it");
  expect(selection.reason.find("this CPU lacks") != std::string::npos, "got: ", selection.reason);
}
#endif

}  // namespace marlin::test
