// A small test harness. TEST(name) { ... } registers a test; a failed check ends it with the place and the values.
// The program runs all its tests, or those whose names contain one of its arguments.
#pragma once
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace pyreid::test {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Registration {
  Registration(const char* name, void (*run)());
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& message) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + message);
}

template <class T>
std::string show(const T& value) {
  std::ostringstream text;
  text.precision(17);
  if constexpr (std::is_enum_v<T>) {
    text << static_cast<long long>(value);
  } else {
    text << value;
  }
  return text.str();
}

// Within the tolerance, or the same infinity, or both NaN.
inline bool close(double actual, double expected, double tolerance) {
  if (std::isnan(expected)) return std::isnan(actual);
  return actual == expected || std::fabs(actual - expected) <= tolerance;
}

template <class Values, class References>
void check_all_close(const char* file, int line, const char* what, const Values& actual, const References& expected,
                     double tolerance) {
  if (actual.size() != expected.size()) {
    fail(file, line, std::string(what) + " has " + show(actual.size()) + " values, expected " + show(expected.size()));
  }
  for (size_t i = 0; i < actual.size(); ++i) {
    if (!close(static_cast<double>(actual[i]), static_cast<double>(expected[i]), tolerance)) {
      fail(file, line,
           std::string(what) + "[" + show(i) + "] is " + show(static_cast<double>(actual[i])) + ", expected " +
               show(static_cast<double>(expected[i])) + " within " + show(tolerance));
    }
  }
}

}  // namespace pyreid::test

#define TEST(name)                                                             \
  static void name();                                                          \
  static const ::pyreid::test::Registration name##_registration(#name, &name); \
  static void name()

#define CHECK(...)                                                                        \
  do {                                                                                    \
    if (!(__VA_ARGS__)) ::pyreid::test::fail(__FILE__, __LINE__, "false: " #__VA_ARGS__); \
  } while (0)

#define CHECK_EQUAL(actual, expected)                                                                                  \
  do {                                                                                                                 \
    const auto check_actual = (actual);                                                                                \
    const auto check_expected = (expected);                                                                            \
    if (!(check_actual == check_expected)) {                                                                           \
      ::pyreid::test::fail(                                                                                            \
          __FILE__, __LINE__,                                                                                          \
          #actual " is " + ::pyreid::test::show(check_actual) + ", expected " + ::pyreid::test::show(check_expected)); \
    }                                                                                                                  \
  } while (0)

#define CHECK_CLOSE(actual, expected, tolerance)                                                      \
  do {                                                                                                \
    const double check_actual = (actual), check_expected = (expected), check_tolerance = (tolerance); \
    if (!::pyreid::test::close(check_actual, check_expected, check_tolerance)) {                      \
      ::pyreid::test::fail(__FILE__, __LINE__,                                                        \
                           #actual " is " + ::pyreid::test::show(check_actual) + ", expected " +      \
                               ::pyreid::test::show(check_expected) + " within " +                    \
                               ::pyreid::test::show(check_tolerance));                                \
    }                                                                                                 \
  } while (0)

// Two containers, element by element.
#define CHECK_ALL_CLOSE(actual, expected, tolerance) \
  ::pyreid::test::check_all_close(__FILE__, __LINE__, #actual, (actual), (expected), (tolerance))

#define CHECK_THROWS(statement, text)                                                                              \
  do {                                                                                                             \
    bool check_thrown = false;                                                                                     \
    try {                                                                                                          \
      statement;                                                                                                   \
    } catch (const std::exception& error) {                                                                        \
      check_thrown = true;                                                                                         \
      if (std::string(error.what()).find(text) == std::string::npos) {                                             \
        ::pyreid::test::fail(__FILE__, __LINE__,                                                                   \
                             std::string("wrong message: ") + error.what() + "\n    expected to find: " + (text)); \
      }                                                                                                            \
    }                                                                                                              \
    if (!check_thrown) ::pyreid::test::fail(__FILE__, __LINE__, "nothing was thrown by " #statement);              \
  } while (0)
