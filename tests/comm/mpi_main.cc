// The main of a GoogleTest program that runs under mpirun. Rank 0 prints; what failed on the other
// ranks is gathered and printed at the end; all ranks exit with the same code.
#include "comm/mpi_main.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <sstream>

namespace mergepipe {
namespace {

Communicator* world = nullptr;

// Keeps what failed as text.
class FailureCollector final : public testing::EmptyTestEventListener {
 public:
  explicit FailureCollector(std::string& text) : text_(text) {}

  void OnTestStart(const testing::TestInfo& test) override {
    test_ = test.test_suite_name() + std::string(".") + test.name();
  }
  // GoogleTest holds its lock here: asking it for the current test would hang.
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::ostringstream line;
    line << "[rank " << world->rank().value << "] " << test_ << ": " << result.file_name() << ":"
         << result.line_number() << ": " << result.message() << "\n";
    text_ += line.str();
  }

 private:
  std::string& text_;
  std::string test_;
};

// Runs the tests; the same exit code on every rank.
int RunAll() {
  std::string failures;
  if (!world->is_root()) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailureCollector(failures));
  }
  if (RUN_ALL_TESTS() != 0 && failures.empty()) failures = "\n";
  std::string all;
  for (const std::string& one : world->Gather(std::move(failures))) all += one;
  std::fputs(all.c_str(), stdout);
  world->Broadcast(all);
  return all.empty() ? 0 : 1;
}

}  // namespace

Communicator& World() { return *world; }

}  // namespace mergepipe

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto session = mergepipe::CommSession::Start();
  if (!session) {
    std::fprintf(stderr, "%s\n", session.error().ToString().c_str());
    return 1;
  }
  mergepipe::world = &(*session)->communicator();
  return mergepipe::RunAll();
}
