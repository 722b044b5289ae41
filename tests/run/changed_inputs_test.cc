// Inputs that change while they are merged: never an output, always the file's name.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "exec/counting_file_system.h"
#include "mergepipe/catalog/catalog.h"
#include "mergepipe/run/demo.h"
#include "mergepipe/run/merge.h"
#include "support/error_of.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

namespace fs = std::filesystem;

/// Calls `meddle` once, when the weights of `path` are opened to be merged: before or after that.
class MeddledFileSystem : public test::CountingFileSystem {
 public:
  MeddledFileSystem(std::string path, bool before, std::function<void()> meddle)
      : path_(std::move(path)), before_(before), meddle_(std::move(meddle)) {}

  Result<std::unique_ptr<ReadableFile>> OpenForStreaming(const std::string& path,
                                                         TransferMode mode) override {
    const bool now = path == path_ && !meddled_;
    if (now && before_) Meddle();
    auto file = CountingFileSystem::OpenForStreaming(path, mode);
    if (now && !before_) Meddle();
    return file;
  }
  bool meddled() const { return meddled_; }

 private:
  void Meddle() {
    meddled_ = true;
    meddle_();
  }

  std::string path_;
  bool before_;
  std::function<void()> meddle_;
  bool meddled_ = false;
};

void FlipLastByte(const std::string& path) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(-1, std::ios::end);
  const int last = file.get();
  file.seekp(-1, std::ios::end);
  file.put(static_cast<char>(last ^ 1));
}

void SetTime(const std::string& path, fs::file_time_type time) { fs::last_write_time(path, time); }

struct Change {
  const char* name;
  const char* says;
  void (*apply)(const std::string& path);
};

// The times are set, as a coarse clock may not have moved between two writes.
const Change kChanges[] = {
    // NOLINT(modernize-avoid-c-arrays): for testing::ValuesIn
    {"Replaced", "was replaced by another file",
     [](const std::string& path) {
       const auto time = fs::last_write_time(path);
       fs::copy_file(path, path + ".new");
       FlipLastByte(path + ".new");
       SetTime(path + ".new", time);  // the inode alone tells
       fs::rename(path + ".new", path);
     }},
    {"Rewritten", "was written to",
     [](const std::string& path) {
       const auto time = fs::last_write_time(path);
       FlipLastByte(path);
       SetTime(path, time + std::chrono::seconds(1));
     }},
    {"Grown", "bytes now, and had",
     [](const std::string& path) {
       const auto time = fs::last_write_time(path);
       std::ofstream(path, std::ios::app | std::ios::binary) << "more";
       SetTime(path, time);
     }},
    {"Removed", "was removed while it was in use",
     [](const std::string& path) { fs::rename(path, path + ".gone"); }},
};

class ChangedInputsTest : public testing::Test {
 protected:
  ChangedInputsTest() : catalog_(directory_ / "catalog.sqlite") {
    DemoOptions demo;
    demo.directory = directory_ / "demo";
    family_ = MakeDemoFamily(PosixFileSystem(), demo).value();
  }

  MergeOptions Options() const {
    MergeOptions options;
    options.inputs = {catalog_, family_.base, family_.experts};
    options.target.directory = directory_ / "out/merged";
    options.target.runs_directory = directory_ / "runs";
    options.plan.strategy.name = "avg";
    options.plan.strategy.weights = {1, 1};
    options.plan.top_p = 1;
    options.limits.memory_bytes = uint64_t{1} << 30;
    return options;
  }

  void ExpectNothingMade() const {
    EXPECT_FALSE(fs::exists(directory_ / "out/merged"));
    for (const auto& entry : fs::recursive_directory_iterator(directory_.path()))
      EXPECT_NE(entry.path().filename(), "manifest.json") << entry.path();
    EXPECT_TRUE(Catalog::Open(catalog_).value()->RunIds().value().empty());
  }

  TemporaryDirectory directory_;
  std::string catalog_;
  DemoFamily family_;
};

class ChangedInputs : public ChangedInputsTest,
                      public testing::WithParamInterface<std::tuple<Change, bool, bool>> {};

TEST_P(ChangedInputs, AreRefusedByNameAndNothingIsPublished) {
  const auto& [change, of_base, before] = GetParam();
  const std::string model = of_base ? family_.base : family_.experts[1];
  const std::string path = JoinPath(model, "model.safetensors");
  fs::create_directory(directory_ / "out");
  MeddledFileSystem files(path, before, [&, apply = change.apply] { apply(path); });
  const auto communicator = LocalCommunicator();
  const auto outcome = RunMerge(files, *communicator, Options());
  ASSERT_TRUE(files.meddled());
  ASSERT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().kind(), ErrorKind::kBadInput);
  const Problem& problem = outcome.error().problems()[0];
  EXPECT_EQ(problem.subject, path);
  // What is gone before it is opened cannot be opened.
  if (!before) {
    EXPECT_NE(problem.what.find(change.says), std::string::npos) << problem.what;
    EXPECT_FALSE(problem.remedy.empty());
  }
  ExpectNothingMade();
}

INSTANTIATE_TEST_SUITE_P(All, ChangedInputs,
                         testing::Combine(testing::ValuesIn(kChanges), testing::Bool(),
                                          testing::Bool()),
                         [](const auto& made) {
                           return std::string(std::get<0>(made.param).name) +
                                  (std::get<1>(made.param) ? "Base" : "Expert") +
                                  (std::get<2>(made.param) ? "BeforeOpening" : "WhileRead");
                         });

TEST_F(ChangedInputsTest, AreNamedTogether) {
  const std::string a = JoinPath(family_.experts[0], "model.safetensors");
  const std::string b = JoinPath(family_.experts[1], "model.safetensors");
  fs::create_directory(directory_ / "out");
  MeddledFileSystem files(b, false, [&] {
    SetTime(a, fs::last_write_time(a) + std::chrono::seconds(1));
    SetTime(b, fs::last_write_time(b) + std::chrono::seconds(1));
  });
  const auto communicator = LocalCommunicator();
  const auto outcome = RunMerge(files, *communicator, Options());
  ASSERT_FALSE(outcome.has_value());
  const auto& problems = outcome.error().problems();
  // The first may be opened after the second: then that is what is said.
  ASSERT_FALSE(problems.empty());
  if (problems.size() == 2) {
    EXPECT_EQ(problems[0].subject, a);
    EXPECT_EQ(problems[1].subject, b);
  } else {
    EXPECT_EQ(problems[0].subject, a);
  }
  ExpectNothingMade();
}

}  // namespace
}  // namespace mergepipe
