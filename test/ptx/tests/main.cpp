// Runs every registered case; the exit code is 1 if any failed.

#include "check.h"

int main() {
  int failed_cases = 0;
  for (const ptx::test::Case& test : ptx::test::cases()) {
    ptx::test::failures() = 0;
    test.run();
    const bool passed = ptx::test::failures() == 0;
    failed_cases += passed ? 0 : 1;
    std::cout << (passed ? "ok    " : "FAIL  ") << test.name << std::endl;
  }
  std::cout << ptx::test::cases().size() << " cases, " << failed_cases << " failed" << std::endl;
  return failed_cases == 0 ? 0 : 1;
}
