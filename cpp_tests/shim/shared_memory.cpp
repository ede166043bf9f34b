#include "cpp_tests/shim/shared_memory.h"

#include <elf.h>
#include <link.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pyreid::shim {
namespace {

constexpr std::string_view kMark = "pyreid_shared_mark_";

// Mangled names of a function's static variables: _ZZ <function> E <length> <variable>. The part before the length, or
// nothing for other symbols.
std::string_view function_of_mark(std::string_view symbol) {
  const size_t mark = symbol.find(kMark);
  if (mark == std::string_view::npos || symbol.substr(0, 3) != "_ZZ") return {};
  const size_t letter = symbol.find_last_not_of("0123456789", mark - 1);
  return symbol.substr(0, letter + 1);
}

uintptr_t load_address() {
  uintptr_t address = 0;
  // The program itself is the first object that is reported.
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        *static_cast<uintptr_t*>(out) = info->dlpi_addr;
        return 1;
      },
      &address);
  return address;
}

}  // namespace

std::vector<SharedVariable> shared_variables() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const std::vector<char> image{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (image.size() < sizeof(ElfW(Ehdr))) throw std::runtime_error("shim: /proc/self/exe cannot be read");
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(image.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(image.data() + header->e_shoff);

  std::vector<std::pair<std::string_view, const ElfW(Sym)*>> variables;
  bool has_symbols = false;
  for (int s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    has_symbols = true;
    const char* names = image.data() + sections[sections[s].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(image.data() + sections[s].sh_offset);
    for (size_t i = 0; i < sections[s].sh_size / sizeof(ElfW(Sym)); ++i) {
      const std::string_view name = names + symbols[i].st_name;
      if ((symbols[i].st_info & 0xf) == STT_OBJECT && name.substr(0, 3) == "_ZZ")
        variables.emplace_back(name, &symbols[i]);
    }
  }
  if (!has_symbols) throw std::runtime_error("shim: the program has no symbol table; do not strip it");

  std::set<std::string_view> functions;
  for (const auto& [name, symbol] : variables) {
    if (const std::string_view function = function_of_mark(name); !function.empty()) functions.insert(function);
  }
  const uintptr_t base = load_address();
  std::vector<SharedVariable> shared;
  for (const auto& [name, symbol] : variables) {
    if (name.find(kMark) != std::string_view::npos) continue;
    const bool writable = sections[symbol->st_shndx].sh_flags & SHF_WRITE;
    const bool in_kernel = std::any_of(functions.begin(), functions.end(), [name = name](std::string_view function) {
      return name.size() > function.size() && name.substr(0, function.size()) == function;
    });
    if (writable && in_kernel)
      shared.push_back({reinterpret_cast<unsigned char*>(base + symbol->st_value), symbol->st_size});
  }
  return shared;
}

}  // namespace pyreid::shim
