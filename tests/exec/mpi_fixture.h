#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "exec/exec_fixture.h"
#include "mergepipe/comm/communicator.h"

/// \file
/// What tests share that run on several ranks. All ranks run all cases.
namespace mergepipe::test {

/// This process's; set before the tests run.
inline Communicator* communicator = nullptr;

inline bool IsLast() { return communicator->rank().value == communicator->size() - 1; }

/// Rank 0's directory, in which all ranks work.
class SharedDirectory {
 public:
  SharedDirectory() {
    if (communicator->is_root()) own_ = std::make_unique<TempDirectory>();
    if (own_) path_ = own_->path();
    communicator->Broadcast(path_);
  }
  ~SharedDirectory() { Wait(); }
  SharedDirectory(const SharedDirectory&) = delete;
  SharedDirectory& operator=(const SharedDirectory&) = delete;

  static void Wait() { EXPECT_TRUE(communicator->Agree({}).has_value()); }
  const std::string& path() const { return path_; }

 private:
  std::unique_ptr<TempDirectory> own_;
  std::string path_;
};

/// That all ranks have the same error, which is the last rank's. Collective.
template <typename T>
void ExpectFailureOfTheLast(const Result<T>& outcome, ErrorKind kind, const std::string& says) {
  std::string error = outcome ? "no error" : outcome.error().ToString();
  EXPECT_TRUE(Says(error, says));
  if (!outcome) {
    EXPECT_EQ(outcome.error().kind(), kind);
  }
  if (communicator->size() > 1) {
    EXPECT_TRUE(Says(error, "[rank " + std::to_string(communicator->size() - 1) + ","));
  }
  const std::string mine = error;
  communicator->Broadcast(error);
  EXPECT_EQ(mine, error);
}

}  // namespace mergepipe::test
