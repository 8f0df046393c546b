// Sets of the lanes of a warp, a bit each.
#pragma once

#include <bit>
#include <cstdint>

#include "program.h"

namespace ptx {

inline uint32_t bit(int lane) { return 1u << lane; }

template <typename Function>
void for_lanes(uint32_t lanes, const Function& function) {
  for (; lanes != 0; lanes &= lanes - 1) function(std::countr_zero(lanes));
}

inline uint32_t lower_lanes(uint32_t count) {
  return count >= kLanes ? kAllLanes : bit(static_cast<int>(count)) - 1;
}

}  // namespace ptx
