#include "cpp_tests/check.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

namespace pyreid::test {
namespace {

struct Case {
  const char* name;
  void (*run)();
};

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

bool chosen(const char* name, int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strstr(name, argv[i])) return true;
  }
  return argc < 2;
}

}  // namespace

Registration::Registration(const char* name, void (*run)()) { cases().push_back({name, run}); }

}  // namespace pyreid::test

int main(int argc, char** argv) {
  using namespace pyreid::test;
  int ran = 0, failed = 0;
  for (const Case& test : cases()) {
    if (!chosen(test.name, argc, argv)) continue;
    ++ran;
    const auto begin = std::chrono::steady_clock::now();
    std::string error;
    try {
      test.run();
    } catch (const std::exception& e) {
      error = e.what();
      ++failed;
    }
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    std::printf("%s %s (%.0f ms)\n", error.empty() ? "ok    " : "FAILED", test.name, ms);
    if (!error.empty()) std::printf("    %s\n", error.c_str());
    std::fflush(stdout);
  }
  if (ran == 0) std::printf("FAILED: no test was run\n");
  return ran == 0 || failed > 0;
}
