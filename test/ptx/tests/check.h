// The few words the checks need: a case registers itself, a failed expectation is counted and told.
#pragma once

#include <iostream>
#include <string>
#include <vector>

namespace ptx::test {

struct Case {
  std::string name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

// A failing sweep would tell the same thing thousands of times.
inline constexpr int kMostMessages = 20;

template <typename... Parts>
void expect(bool condition, const Parts&... parts) {
  if (condition) return;
  if (++failures() > kMostMessages) return;
  std::cerr << "  failed: ";
  (std::cerr << ... << parts) << '\n';
}

}  // namespace ptx::test

#define TEST(name)                                                \
  static void name();                                             \
  static const ptx::test::Register register_##name(#name, &name); \
  static void name()
