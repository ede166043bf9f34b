// Finds the __shared__ variables of this program, to fill them before each block.
#pragma once
#include <cstddef>
#include <vector>

namespace pyreid::shim {

struct SharedVariable {
  unsigned char* address;
  size_t bytes;
};

// Every static variable of a function in which the __shared__ macro has left its mark. Read from the symbol table of
// the running program; throws std::runtime_error when it has none.
std::vector<SharedVariable> shared_variables();

}  // namespace pyreid::shim
