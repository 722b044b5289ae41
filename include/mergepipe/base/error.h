#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

namespace mergepipe {

/// What went wrong, as far as the caller's next step depends on it. Each kind has one exit code
/// (cli/exit_code.h).
enum class ErrorKind {
  kUsage,         ///< an option or argument is wrong
  kBadInput,      ///< an input file is malformed, does not fit, or has changed
  kNoSpace,       ///< not enough disk space or memory
  kIo,            ///< the system refused or failed an operation
  kVerification,  ///< bytes on disk are not what the record says
  kInterrupted,   ///< stopped by a signal; the same command can be run again
  kInternal,      ///< a defect of this program
};

std::string_view ErrorKindName(ErrorKind kind);

/// One thing that is wrong: what it concerns (file, tensor, option), what is wrong with it, and
/// what to do. The remedy may be empty when nothing sensible can be said.
struct Problem {
  std::string subject;
  std::string what;
  std::string remedy;

  /// "subject: what; remedy" on one line; control characters are escaped.
  std::string ToLine() const;
  bool operator==(const Problem&) const = default;
};

/// A failure as a value: a kind and at least one problem. Problems that can be seen together are
/// reported together.
class [[nodiscard]] Error {
 public:
  Error(ErrorKind kind, std::string subject, std::string what, std::string remedy = {});
  /// `problems` must not be empty.
  Error(ErrorKind kind, std::vector<Problem> problems);

  ErrorKind kind() const { return kind_; }
  const std::vector<Problem>& problems() const { return problems_; }
  /// All problems, a line each, without a trailing newline.
  std::string ToString() const;

  bool operator==(const Error&) const = default;

 private:
  ErrorKind kind_;
  std::vector<Problem> problems_;
};

/// A value or an Error.
template <typename T>
using Result = tl::expected<T, Error>;
/// Success or an Error.
using Status = Result<void>;

/// Makes the error branch of a Result.
template <typename... Args>
tl::unexpected<Error> Fail(Args&&... args) {
  return tl::unexpected<Error>(Error(std::forward<Args>(args)...));
}

/// The error of a system call: `subject: <verb>: <strerror>`. ENOSPC, EDQUOT and ENOMEM become
/// kNoSpace, all else kIo; the remedy follows from the number.
Error SystemError(int errno_value, std::string subject, std::string_view verb);

/// Collects problems that are to be reported together.
class ProblemList {
 public:
  void Add(std::string subject, std::string what, std::string remedy = {});
  /// Problems that are there already are not added again.
  void Add(const Error& error);
  bool empty() const { return problems_.empty(); }
  /// Success if nothing was added, else one Error of `kind` with everything that was.
  Status ToStatus(ErrorKind kind) const;

 private:
  std::vector<Problem> problems_;
};

}  // namespace mergepipe

#define MERGEPIPE_CONCAT_INNER(a, b) a##b
#define MERGEPIPE_CONCAT(a, b) MERGEPIPE_CONCAT_INNER(a, b)

/// Returns the error of `expr` (a Status or Result) from the enclosing function, if it has one.
// __COUNTER__: the expression may hold a lambda that uses the macro itself.
#define MERGEPIPE_RETURN_IF_ERROR(expr) \
  MERGEPIPE_RETURN_IF_ERROR_IMPL(MERGEPIPE_CONCAT(mergepipe_status_, __COUNTER__), expr)
#define MERGEPIPE_RETURN_IF_ERROR_IMPL(status, expr)                        \
  do {                                                                      \
    if (auto status = (expr); !status)                                      \
      return tl::unexpected<::mergepipe::Error>(std::move(status).error()); \
  } while (false)

/// `MERGEPIPE_ASSIGN_OR_RETURN(auto x, F());` gives `x` the value of `F()` or returns its error.
#define MERGEPIPE_ASSIGN_OR_RETURN(lhs, expr) \
  MERGEPIPE_ASSIGN_OR_RETURN_IMPL(MERGEPIPE_CONCAT(mergepipe_result_, __COUNTER__), lhs, expr)
#define MERGEPIPE_ASSIGN_OR_RETURN_IMPL(result, lhs, expr)                           \
  auto result = (expr);                                                              \
  if (!result) return tl::unexpected<::mergepipe::Error>(std::move(result).error()); \
  lhs = std::move(*result)
