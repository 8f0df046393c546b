// Which path is chosen, for machines that this one may not be.

#include <string>

#include "../cpu/dispatch.h"
#include "check.h"

namespace marlin::test {
namespace {

using cpu::Activation;
using cpu::available_paths;
using cpu::CpuFeatures;
using cpu::microkernel_of;
using cpu::Path;
using cpu::precise_activation;
using cpu::select_path;
using cpu::Selection;
using Names = std::vector<std::string>;

bool mentions(const Selection& selection, const char* text) {
  return selection.reason.find(text) != std::string::npos;
}

}  // namespace

MARLIN_TEST(a_machine_without_extensions_runs_generic) {
  const Selection selection = select_path(CpuFeatures{}, nullptr);
  expect(selection.path == &cpu::kGenericPath, "generic is chosen");
  expect(!selection.forced, "nothing is forced");
  expect(mentions(selection, "the best one"), "got: ", selection.reason);
  expect(available_paths(CpuFeatures{}) == Names{"generic"}, "only generic");
}

MARLIN_TEST(an_empty_variable_forces_nothing) {
  expect(!select_path(CpuFeatures{}, "").forced, "empty is unset");
}

MARLIN_TEST(an_unknown_name_is_refused_with_the_known_ones) {
  for (const char* name : {"avx9000", "Generic", "generic ", "`"}) {
    const Selection selection = select_path(cpu::detect_cpu(), name);
    expect(selection.path == nullptr && selection.forced, "no path for ", name);
    expect(mentions(selection, name) && mentions(selection, "MARLIN_CPU_KERNEL"),
           "got: ", selection.reason);
    expect(mentions(selection, "`generic`"), "got: ", selection.reason);
  }
}

MARLIN_TEST(the_chosen_path_is_the_first_available_one) {
  const CpuFeatures here = cpu::detect_cpu();
  const Names names = available_paths(here);
  expect(names.back() == "generic", "generic is last");
  expect(select_path(here, nullptr).path->name == names.front(), "the first one runs");
  for (const std::string& name : names) {
    const Selection selection = select_path(here, name.c_str());
    expect(selection.path != nullptr && selection.path->name == name, name, " can be forced");
    expect(selection.forced && mentions(selection, "forced by"), "got: ", selection.reason);
  }
}

#if defined(__x86_64__)
MARLIN_TEST(avx2_needs_its_features) {
  const CpuFeatures plain = {.avx2 = true};
  const CpuFeatures vnni = {.avx2 = true, .avx_vnni = true};
  expect(select_path(plain, nullptr).path == &cpu::kAvx2Path, "AVX2");
  expect(select_path(vnni, nullptr).path == &cpu::kAvxVnniPath, "AVX-VNNI");
  expect(available_paths(vnni) == Names{"avx_vnni", "avx2", "generic"}, "best first");
  expect(select_path(vnni, "avx2").path == &cpu::kAvx2Path, "avx2 can be forced");
  const Selection selection = select_path(plain, "avx_vnni");
  expect(selection.path == nullptr && selection.forced, "AVX-VNNI cannot be forced without it");
  expect(mentions(selection, "this CPU lacks"), "got: ", selection.reason);
  expect(select_path({}, "avx2").path == nullptr, "avx2 cannot be forced without it");
}

MARLIN_TEST(avx512_is_preferred_to_avx2) {
  const CpuFeatures both = {.avx2 = true, .avx_vnni = true, .avx512 = true};
  expect(available_paths(both) == Names{"avx512", "avx_vnni", "avx2", "generic"}, "best first");
}

MARLIN_TEST(avx512_needs_its_features) {
  const CpuFeatures plain = {.avx512 = true};
  const CpuFeatures vnni = {.avx512 = true, .avx512_vnni = true};
  const CpuFeatures bf16 = {.avx512 = true, .avx512_vnni = true, .avx512_bf16 = true};
  expect(select_path(plain, nullptr).path == &cpu::kAvx512Path, "F, BW, DQ, VL");
  expect(select_path(vnni, nullptr).path == &cpu::kAvx512VnniPath, "VNNI");
  expect(select_path(bf16, nullptr).path == &cpu::kAvx512Bf16Path, "BF16");
  expect(available_paths(plain).front() == "avx512", "no VNNI");
  expect(available_paths(bf16).front() == "avx512_bf16", "all");
  expect(select_path(bf16, "generic").path == &cpu::kGenericPath, "generic runs anywhere");
  for (const char* name : {"avx512_vnni", "avx512_bf16"}) {
    const Selection selection = select_path(plain, name);
    expect(selection.path == nullptr && selection.forced, name, " cannot be forced without it");
    expect(mentions(selection, "this CPU lacks") && mentions(selection, "VNNI"),
           "got: ", selection.reason);
  }
  expect(select_path({}, "avx512").path == nullptr, "avx512 cannot be forced without it");
}

MARLIN_TEST(amx_needs_its_features) {
  const CpuFeatures bf16 = {.avx2 = true, .avx512 = true, .avx512_vnni = true, .avx512_bf16 = true};
  CpuFeatures amx = bf16;
  amx.amx_bf16 = true;
  expect(select_path(amx, nullptr).path == &cpu::kAmxPath, "AMX is the best");
  expect(select_path(amx, "avx512_bf16").path == &cpu::kAvx512Bf16Path, "the next can be forced");
  const Selection selection = select_path(bf16, "amx_bf16");
  expect(selection.path == nullptr && selection.forced, "AMX cannot be forced without it");
  expect(mentions(selection, "`amx_bf16` needs AMX with BF16 and INT8, permitted by Linux"),
         "got: ", selection.reason);
}

MARLIN_TEST(a_feature_comes_with_those_below_it) {
  const CpuFeatures here = cpu::detect_cpu();
  expect(here.avx2 || !here.avx_vnni, "AVX-VNNI without AVX2");
  expect(here.avx2 || !here.avx512, "AVX-512 without AVX2");
  expect(here.avx512 || !here.avx512_vnni, "VNNI without AVX-512");
  expect(here.avx512_vnni || !here.avx512_bf16, "BF16 without VNNI");
  expect(here.avx512_bf16 || !here.amx_bf16, "AMX without BF16");
}
#elif defined(__aarch64__)
MARLIN_TEST(dot_products_of_arm64_need_their_feature) {
  const CpuFeatures plain = {.neon = true};
  const CpuFeatures dotprod = {.neon = true, .neon_dotprod = true};
  expect(select_path(plain, nullptr).path == &cpu::kNeonPath, "Advanced SIMD");
  expect(select_path(dotprod, nullptr).path == &cpu::kNeonDotprodPath, "dot products");
  expect(available_paths(plain) == Names{"neon", "generic"}, "no dot products");
  expect(available_paths(dotprod) == Names{"neon_dotprod", "neon", "generic"}, "all");
  const Selection selection = select_path(plain, "neon_dotprod");
  expect(selection.path == nullptr && selection.forced, "cannot be forced without them");
  expect(mentions(selection, "this CPU lacks"), "got: ", selection.reason);
}

MARLIN_TEST(every_arm64_cpu_has_advanced_simd) { expect(cpu::detect_cpu().neon, "neon"); }
#endif

// Integer formats are what every path has: callers may ask for them anywhere.
MARLIN_TEST(every_path_has_the_integer_formats) {
  for (const std::string& name : available_paths(cpu::detect_cpu())) {
    const Path& path = *select_path(cpu::detect_cpu(), name.c_str()).path;
    for (const Activation activation : {Activation::kInt16, Activation::kInt8}) {
      const cpu::Microkernel* kernel = microkernel_of(path, activation);
      expect(kernel != nullptr && kernel->takes_bytes, name, " lacks an integer format");
    }
    expect(microkernel_of(path, Activation::kBFloat16) == path.bfloat16, name, ": bfloat16");
    expect(microkernel_of(path, Activation::kInt16) == path.int16, name, ": int16");
    expect(microkernel_of(path, Activation::kInt8) == path.int8, name, ": int8");
  }
}

MARLIN_TEST(bfloat16_stays_what_it_is_where_a_path_multiplies_it) {
  cpu::Microkernel narrow{};
  cpu::Microkernel wide{};
  wide.takes_bytes = true;
  const Path without = {"without", nullptr, &wide, &wide, nullptr};
  const Path of_nibbles = {"of_nibbles", &narrow, &wide, &wide, nullptr};
  const Path of_both = {"of_both", &wide, &wide, &wide, nullptr};
  for (const int bits : {4, 8}) {
    for (const Dtype dtype : {Dtype::kFloat16, Dtype::kFloat32}) {
      expect(precise_activation(of_both, dtype, bits) == Activation::kInt16, "other dtypes");
    }
    expect(precise_activation(without, Dtype::kBFloat16, bits) == Activation::kInt16, "without");
    expect(precise_activation(of_both, Dtype::kBFloat16, bits) == Activation::kBFloat16, "both");
  }
  expect(precise_activation(of_nibbles, Dtype::kBFloat16, 4) == Activation::kBFloat16, "4 bits");
  expect(precise_activation(of_nibbles, Dtype::kBFloat16, 8) == Activation::kInt16, "8 bits");
}

}  // namespace marlin::test
