#include "mergepipe/manifest/run_folder.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "mergepipe/io/directory_probe.h"
#include "mergepipe/manifest/manifest_codec.h"

namespace mergepipe {
namespace {

class RunFolderTest : public ::testing::Test {
 protected:
  RunFolderTest() {
    std::string name = (std::filesystem::temp_directory_path() / "mergepipe_runs_XXXXXX").string();
    root_ = mkdtemp(name.data());
    runs_ = root_ + "/deep/runs";
  }
  ~RunFolderTest() override { std::filesystem::remove_all(root_); }

  Result<RunFolder> Create(const std::string& wanted) {
    return RunFolder::Create(PosixFileSystem(), runs_, wanted);
  }

  std::string root_;
  std::string runs_;
};

TEST_F(RunFolderTest, TakesAFreeName) {
  std::vector<RunFolder> kept;
  for (const char* expected : {"20260203_101500_m", "20260203_101500_m_2", "20260203_101500_m_3"}) {
    auto folder = Create("20260203_101500_m");
    ASSERT_TRUE(folder.has_value()) << folder.error().ToString();
    EXPECT_EQ(folder->run_id(), expected);
    EXPECT_EQ(folder->path(), runs_ + "/" + expected);
    EXPECT_TRUE(std::filesystem::is_directory(folder->path()));
    kept.push_back(std::move(*folder));
  }
  std::ofstream(runs_ + "/x") << "a file takes a name too";
  EXPECT_EQ(Create("x")->run_id(), "x_2");
}

TEST_F(RunFolderTest, IsLockedAsLongAsItsRunIsUnderWay) {
  std::string lock;
  {
    auto folder = Create("a");
    folder->Keep();
    lock = folder->path() + "/" + kRunLockName;
    const RunFolder moved = std::move(*folder);
    EXPECT_TRUE(IsLocked(lock).value());
  }
  EXPECT_FALSE(std::filesystem::exists(lock));
  EXPECT_TRUE(std::filesystem::is_directory(runs_ + "/a"));
}

TEST_F(RunFolderTest, IsRemovedUnlessKept) {
  std::string path;
  {
    auto folder = Create("a");
    path = folder->path();
    ASSERT_TRUE(folder->Write(kPlanName, "{}\n").has_value());
    RunFolder moved = std::move(*folder);
    EXPECT_EQ(moved.path(), path);
    EXPECT_TRUE(std::filesystem::exists(path + "/plan.json"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(std::filesystem::exists(runs_));
  {
    auto folder = Create("a");
    ASSERT_TRUE(folder->Write(kManifestName, "text\n").has_value());
    ASSERT_TRUE(folder->Sync().has_value());
    folder->Keep();
    const RunFolder moved = std::move(*folder);
  }
  std::ifstream file(path + "/manifest.json");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "text\n");
}

TEST_F(RunFolderTest, DoesNotOverwriteItsFiles) {
  auto folder = Create("a");
  ASSERT_TRUE(folder->Write(kMetaName, "one").has_value());
  const Status second = folder->Write(kMetaName, "two");
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().ToString().find("meta.json"), std::string::npos);
}

TEST_F(RunFolderTest, FailsWhereNoDirectoryCanBe) {
  std::ofstream(root_ + "/deep") << "a file";
  const auto folder = Create("a");
  ASSERT_FALSE(folder.has_value());
  EXPECT_NE(folder.error().ToString().find(root_ + "/deep"), std::string::npos);
}

TEST(RunMeta, WritesACommandLineThatIsNoText) {
  RunMeta meta;
  meta.run_id = "r";
  meta.command_line = {"mergepipe", "--out", "caf\xe9", "\xff\xfe", "\xc3\xa4"};
  meta.output_path = "/tmp/caf\xe9";
  meta.exit_status = 5;
  meta.plan_seconds = 0.25;
  SliceReport rank;
  rank.rank = 3;
  rank.host = "node\xe9";
  rank.threads = 2;
  rank.peak_memory_bytes = 77;
  meta.ranks = {rank};
  const std::string text = SerializeMeta(meta);
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << text;
  EXPECT_EQ(json.at("schema"), "mergepipe.meta/1");
  EXPECT_EQ(json.at("command_line").size(), 5u);
  EXPECT_EQ(json.at("command_line")[1], "--out");
  EXPECT_EQ(json.at("command_line")[2], "caf\xef\xbf\xbd");  // U+FFFD
  EXPECT_EQ(json.at("command_line")[4], "\xc3\xa4");
  EXPECT_EQ(json.at("exit_status"), 5);
  EXPECT_EQ(json.at("seconds").at("plan"), 0.25);
  EXPECT_EQ(json.at("ranks")[0].at("rank"), 3);
  EXPECT_EQ(json.at("ranks")[0].at("peak_memory_bytes"), 77);
  EXPECT_EQ(text.back(), '\n');
}

TEST(Meta, ReadsAnExitStatusThatIsOne) {
  RunMeta meta;
  meta.exit_status = 75;
  auto json = nlohmann::json::parse(SerializeMeta(meta));
  EXPECT_EQ(ParseMeta(json.dump(), "meta.json")->exit_status, 75);
  for (const nlohmann::json& status :
       {nlohmann::json(1e308), nlohmann::json(-1), nlohmann::json(uint64_t{1} << 31),
        nlohmann::json("0"), nlohmann::json()}) {
    json["exit_status"] = status;
    const auto parsed = ParseMeta(json.dump(), "meta.json");
    ASSERT_FALSE(parsed.has_value()) << status;
    EXPECT_EQ(parsed.error().kind(), ErrorKind::kBadInput);
  }
}

}  // namespace
}  // namespace mergepipe
