#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "mergepipe/base/error.h"

namespace mergepipe {

/// Problems of one file: the first 20 are kept, the others counted. A damaged header may have one
/// for each of 100,000 tensors.
class CappedProblems {
 public:
  static constexpr size_t kLimit = 20;

  /// `subject` is the file; it also opens the line that counts what was left out.
  explicit CappedProblems(std::string subject) : subject_(std::move(subject)) {}

  /// A problem of the whole file.
  void Add(std::string what, std::string remedy = {});
  /// A problem of one of its tensors.
  void AddTensor(std::string_view tensor, std::string what, std::string remedy = {});

  bool empty() const { return count_ == 0; }
  Status ToStatus() const;

 private:
  void AddTo(std::string subject, std::string what, std::string remedy);

  std::string subject_;
  ProblemList kept_;
  size_t count_ = 0;
};

/// 'text' in quotes as Quote does, cut after 200 bytes.
std::string QuoteShort(std::string_view text);

}  // namespace mergepipe
