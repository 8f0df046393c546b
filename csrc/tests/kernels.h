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

// The dtype through which a format sees activations.
Dtype seen_as(const Kernel& kernel);

// How far a row may lie from the product of what the format sees, relative to it, both as Euclidean
// norms.
double tolerance(const Kernel& kernel);

// Bytes of one prepared activation.
int64_t element_bytes(const Kernel& kernel);

// How make_plan cuts K: see Panels.
struct Cut {
  int64_t stretch;
  int64_t segment;
};
Cut cut_of(const Kernel& kernel, const Shape& shape);

// Panels for `rows` rows in guarded memory.
class GuardedPanels {
 public:
  GuardedPanels(const Kernel& kernel, int64_t rows, int64_t k, Cut cut, Flush flush);

  const cpu::Panels& panels() const { return panels_; }
  void poison(int byte);

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
  Prepared(const Kernel& kernel, const LinearCase& linear, Flush flush, Cut cut);
  Prepared(const Kernel& kernel, const LinearCase& linear, Flush flush)
      : Prepared(kernel, linear, flush, cut_of(kernel, linear.shape())) {}
};

// Rows that one pass over these panels may take.
int max_rows(const Kernel& kernel, const cpu::Panels& panels);

// All rows, as many in a pass as the kernel takes, opened in registers.
cpu::RowSlice whole_slice(const Kernel& kernel, const cpu::Panels& panels);

// The tiles of every block side by side, without their padding: [slice.count][n].
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

// Multiplies all rows and expects each within the tolerance.
void expect_close(const Kernel& kernel, const LinearCase& linear, Expected& expected, Flush flush);

}  // namespace marlin::test
