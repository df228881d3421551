/// What a call throws, for tests of messages.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <parscale/core/error.hpp>
#include <string>

namespace parscale::test {

/// The message of the E that f() throws. The test fails when f throws nothing or another type.
template <class E, class F>
std::string thrown(F f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& other) {
    FAIL("another type of exception was thrown: " << other.what());
  }
  FAIL("nothing was thrown");
  return {};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace parscale::test
