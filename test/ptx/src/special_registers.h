// The registers that the machine sets.
#pragma once

#include <string_view>

namespace ptx {

// Whether PTX has a special register of this name, `%laneid` or `%tid`.
bool is_special_register(std::string_view name);

}  // namespace ptx
