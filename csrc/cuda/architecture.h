// The GPUs that the kernels run on.
#pragma once

namespace marlin::cuda {

inline constexpr int kOldestArchitecture = 80;  // ten times its compute capability

}  // namespace marlin::cuda
