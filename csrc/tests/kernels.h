// The microkernels that this machine can run, and how a check calls one: panels and tiles in
// guarded memory.
#pragma once

#include <string>
#include <vector>

#include "../cpu/microkernel.h"
#include "linear_case.h"

namespace marlin::test {

struct Kernel {
  const cpu::Path* path;
  cpu::Activation activation;
  const cpu::Microkernel* microkernel;

  bool is_integer() const { return activation != cpu::Activation::kBFloat16; }
};

// Best first.
std::vector<const cpu::Path*> runnable_paths();

// Every format of every path that multiplies weights of `bits`. One that two paths share is named
// once, after the better path.
std::vector<Kernel> runnable_kernels(int bits);

std::string describe(const Kernel& kernel);
std::string describe(const Kernel& kernel, const Shape& shape);

// The dtype through which a format sees activations: of what it then computes, only int8 loses more
// than `tolerance` has for all others.
Dtype seen_as(const Kernel& kernel);

// How far a row may lie from the product of what the format sees, relative to it, both as Euclidean
// norms.
double tolerance(const Kernel& kernel);

// Bytes of one prepared activation.
int64_t element_bytes(const Kernel& kernel);

// The segment that make_plan chooses.
int64_t segment_of(const Kernel& kernel, const Shape& shape);

// Panels for `rows` rows in guarded memory.
class GuardedPanels {
 public:
  GuardedPanels(const Kernel& kernel, int64_t rows, int64_t k, int64_t segment, Flush flush);

  const cpu::Panels& panels() const { return panels_; }
  void poison(int byte);
  bool same_bytes(const GuardedPanels& other) const;

  // Numbers of the bytes that both hold alike. Of two that were poisoned differently before the
  // same was prepared in them: the bytes that were written.
  std::vector<int64_t> bytes_in_common(const GuardedPanels& other) const;

 private:
  Guarded<std::byte> values_;
  Guarded<int32_t> sums_;
  Guarded<float> scales_;
  cpu::Panels panels_;
};

// The prepared activations of a case.
class Prepared : public GuardedPanels {
 public:
  Prepared(const Kernel& kernel, const LinearCase& linear, Flush flush, int64_t segment);
  Prepared(const Kernel& kernel, const LinearCase& linear, Flush flush)
      : Prepared(kernel, linear, flush, segment_of(kernel, linear.shape())) {}
};

// All of `rows` rows, as many in a pass as the kernel takes, opened in registers.
cpu::RowSlice whole_slice(const Kernel& kernel, int64_t rows);

// The tiles of every block side by side: [slice.count][64 * blocks]. The last columns are padding.
std::vector<float> multiply(const Kernel& kernel, const LinearCase& linear,
                            const Prepared& prepared, const cpu::RowSlice& slice, Flush flush);

// All rows, as whole_slice has them.
std::vector<float> multiply(const Kernel& kernel, const LinearCase& linear, Flush flush);

// The products of a case in double, each computed when a kernel first asks for it.
class Expected {
 public:
  explicit Expected(const LinearCase& linear) : linear_(linear) {}
  const std::vector<double>& of(const Kernel& kernel);

 private:
  const LinearCase& linear_;
  std::vector<double> exact_;
  std::vector<double> of_bfloat16_;
};

// Multiplies all rows and expects each within the tolerance, and the padding to be zero.
void expect_close(const Kernel& kernel, const LinearCase& linear, Expected& expected, Flush flush);

}  // namespace marlin::test
