// Clearing away what killed merges left, where things go wrong or change meanwhile.

#include "run/leftovers.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "exec/counting_file_system.h"
#include "mergepipe/manifest/run_folder.h"
#include "support/error_of.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

/// Refuses to remove, or to lock.
class StubbornFileSystem : public test::CountingFileSystem {
 public:
  Status Remove(const std::string& path) override {
    if (!removes) return Fail(ErrorKind::kIo, path, "remove: Input/output error");
    return CountingFileSystem::Remove(path);
  }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    if (!locks) return Fail(*locks_fail_with, path, "lock: no");
    return CountingFileSystem::Lock(path);
  }

  bool removes = true;
  bool locks = true;
  std::optional<ErrorKind> locks_fail_with;
};

class LeftoversTest : public testing::Test {
 protected:
  std::string Leave(const std::string& name = ".m.mergepipe-0123456789abcdef") {
    fs::create_directory(directory_ / name);
    std::ofstream(JoinPath(directory_ / name, "model.safetensors")) << "weights";
    return directory_ / name;
  }
  Leftover TheOne() {
    auto found = FindLeftoversIn(files_, directory_.path());
    EXPECT_TRUE(found.has_value()) << ErrorOf(found).ToString();
    EXPECT_EQ(found->size(), 1u);
    return found->at(0);
  }

  TemporaryDirectory directory_;
  StubbornFileSystem files_;
};

TEST_F(LeftoversTest, AreFoundAndSettled) {
  const std::string path = Leave();
  Leftover leftover = TheOne();
  EXPECT_EQ(leftover.kind, Leftover::Kind::kStaging);
  EXPECT_EQ(leftover.path, path);
  EXPECT_EQ(leftover.target, directory_ / "m");
  EXPECT_EQ(leftover.bytes, 7u);
  EXPECT_LT(leftover.age_seconds, 3600u);
  EXPECT_FALSE(leftover.has_journal);
  EXPECT_EQ(leftover.kept, "");
  Settle(files_, leftover);
  EXPECT_TRUE(leftover.settled);
  EXPECT_TRUE(fs::is_empty(directory_.path())) << "not even the lock stays";
}

TEST_F(LeftoversTest, WhatCannotBeRemovedIsToldWithItsError) {
  const std::string path = Leave();
  Leftover leftover = TheOne();
  files_.removes = false;
  Settle(files_, leftover);
  EXPECT_FALSE(leftover.settled);
  ASSERT_TRUE(leftover.failure.has_value());
  EXPECT_EQ(leftover.failure->problems()[0].subject, path);
}

TEST_F(LeftoversTest, AJobThatCameMeanwhileIsLeftAlone) {
  const std::string path = Leave();
  Leftover leftover = TheOne();
  files_.locks = false;
  files_.locks_fail_with = ErrorKind::kUsage;
  Settle(files_, leftover);
  EXPECT_EQ(leftover.kept, "a job is at work on it");
  EXPECT_FALSE(leftover.settled || leftover.failure.has_value());
  EXPECT_TRUE(fs::exists(path));
}

TEST_F(LeftoversTest, WithoutLocksNothingIsRemoved) {
  const std::string path = Leave();
  Leftover leftover = TheOne();
  files_.locks = false;
  files_.locks_fail_with = ErrorKind::kIo;
  Settle(files_, leftover);
  EXPECT_TRUE(leftover.failure.has_value());
  EXPECT_TRUE(fs::exists(path));
}

TEST_F(LeftoversTest, WhatBecameForeignMeanwhileStays) {
  const std::string path = Leave();
  Leftover leftover = TheOne();
  fs::create_symlink("/", JoinPath(path, "link"));
  Settle(files_, leftover);
  EXPECT_FALSE(leftover.settled);
  EXPECT_NE(leftover.kept.find("link"), std::string::npos) << leftover.kept;
  EXPECT_TRUE(fs::exists(path));
}

TEST_F(LeftoversTest, WhatBecameALinkMeanwhileStays) {
  const std::string path = Leave();
  Leftover leftover = TheOne();
  fs::rename(path, directory_ / "precious");
  fs::create_directory_symlink(directory_ / "precious", path);
  Settle(files_, leftover);
  EXPECT_FALSE(leftover.settled);
  EXPECT_TRUE(fs::exists(directory_ / "precious/model.safetensors"));
  EXPECT_TRUE(fs::is_symlink(path));
}

TEST_F(LeftoversTest, ARunUnderWayIsNoOrphan) {
  const std::string runs = directory_ / "runs";
  {
    auto folder = RunFolder::Create(files_, runs, "20260203_101500_m");
    ASSERT_TRUE(folder.has_value());
    folder->Keep();
    auto found = FindOrphanedRuns(files_, runs);
    ASSERT_EQ(found->size(), 1u);
    EXPECT_EQ(found->at(0).kept, "a job is at work on it");
    Settle(files_, found->at(0));
    EXPECT_TRUE(fs::exists(folder->path()));
  }
  auto found = FindOrphanedRuns(files_, runs);
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->at(0).kept, "was made just now");
  fs::last_write_time(runs + "/20260203_101500_m", fs::file_time_type::clock::now() - 2min);
  found = FindOrphanedRuns(files_, runs);
  EXPECT_GE(found->at(0).age_seconds, 120u);
  Settle(files_, found->at(0));
  EXPECT_TRUE(found->at(0).settled) << found->at(0).kept;
  EXPECT_TRUE(fs::is_empty(runs));
}

TEST_F(LeftoversTest, OnlyRunIdsAreRunFolders) {
  for (const char* name : {"2026", "20260203_101500", "20260203_101500_", "2026020a_101500_m",
                           "20260203-101500_m", "notes"})
    fs::create_directories(JoinPath(directory_ / "runs", name));
  EXPECT_TRUE(FindOrphanedRuns(files_, directory_ / "runs")->empty());
  EXPECT_TRUE(FindOrphanedRuns(files_, directory_ / "nowhere")->empty());
}

}  // namespace
}  // namespace mergepipe
