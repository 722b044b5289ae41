#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

/// \file
/// System calls that do what they may do, and seldom do: end early by a signal, or transfer a part.
/// posix_calls.cc takes the place of the C library's functions in its test program.
namespace mergepipe::test {

/// What happens to the calls of a function from here on.
struct CallPlan {
  int error = 0;  ///< errno of the first `failures` calls
  int failures = 0;
  size_t most = SIZE_MAX;  ///< bytes that one call transfers
  int calls = 0;           ///< so far
};

/// By the function's name: "open", "pread", "pwrite", "fsync", "fallocate", "ftruncate",
/// "copy_file_range", "close", "stat". Reset with `= {}`.
CallPlan& PlanOf(const std::string& function);
void ResetPlans();

}  // namespace mergepipe::test
