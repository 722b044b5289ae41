// Commands whose work is in the catalog, disturbed at every call to the file system.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <utility>

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/run/analyze.h"
#include "mergepipe/run/models.h"
#include "mergepipe/run/recover.h"
#include "run/ladder_world.h"
#include "support/error_of.h"

namespace mergepipe {
namespace {

using namespace test;

constexpr uint64_t kBlock = 1000;

// What the catalog knows, for two to be compared: by fingerprints, not by times.
using Knowledge = std::map<std::string, std::string>;

std::string BytesOf(const std::vector<BlockStatistics>& blocks) {
  std::string text;
  for (const BlockStatistics& block : blocks) {
    text += std::to_string(block.sum_squares) + " " + std::to_string(block.max_abs) + " " +
            block.hash.ToHex() + "\n";
  }
  return text;
}

Knowledge KnownTo(const std::string& path) {
  Knowledge known;
  const auto catalog = Catalog::Open(path).value();
  const auto models = catalog->ModelIds().value();
  for (const std::string& id : models) {
    known[id] = catalog->FindModel(id).value()->fingerprint.ToHex();
    const StatisticsId set{"base", id, kBlock, 0};
    const auto tensors = catalog->StatisticsTensors(set).value();
    for (const uint32_t tensor : tensors) {
      known[id + "/" + std::to_string(tensor)] =
          BytesOf(catalog->ReadStatistics(set, tensor).value().value());
    }
  }
  return known;
}

using Command = std::function<Status(World&, FileSystem&)>;

Status Analyze(World& world, FileSystem& files) {
  AnalyzeOptions options;
  options.inputs = world.Options().inputs;
  options.block_size = kBlock;
  options.limits = world.Options().limits;
  const auto outcome = RunAnalyze(files, world.communicator(), options);
  return outcome ? Status() : Status(Fail(outcome.error()));
}

Status Register(World& world, FileSystem& files) {
  const auto record = RegisterModel(files, world.catalog(), "/in/expert_1", "mine");
  return record ? Status() : Status(Fail(record.error()));
}

// Whether the call number `n` was reached.
bool Climb(const Command& command, const Knowledge& expected, uint64_t n) {
  World world;
  world.Disturb(Disturbance::kError, n);
  const Status status = command(world, world.files());
  const bool hit = world.files().hit();
  SCOPED_TRACE("call " + std::to_string(n) + ": " + (hit ? world.files().log()[n] : "none"));
  EXPECT_EQ(status.has_value(), !hit);
  if (!status) world.ExpectTold(status.error(), n);
  world.Settle(Disturbance::kError, n);
  world.ExpectCatalogWhole();
  const Status again = command(world, world.disk());
  EXPECT_TRUE(again.has_value()) << ErrorOf(again).ToString();
  EXPECT_EQ(KnownTo(world.catalog()), expected);
  return hit;
}

void ClimbAll(const Command& command, uint64_t stride) {
  World world;
  ASSERT_TRUE(command(world, world.disk()).has_value());
  const Knowledge expected = KnownTo(world.catalog());
  ASSERT_FALSE(expected.empty());
  uint64_t n = 0;
  while (Climb(command, expected, n)) n += stride;
  EXPECT_GT(n, 20u) << "hardly anything was disturbed";
}

TEST(CatalogLadder, Analyze) { ClimbAll(Analyze, 3); }

TEST(CatalogLadder, Register) { ClimbAll(Register, 1); }

// Of a damaged catalog on the real file system.
class RecoverLadder : public testing::Test {
 protected:
  RecoverLadder() {
    WriteTree(disk_, root_ + "/in", ReadTree(world_.disk(), "/in"));
    MergeOptions options = world_.Options();
    options.inputs = {catalog_, root_ + "/in/base", {root_ + "/in/expert_1"}};
    options.plan.strategy.weights = {1};
    options.target.directory = root_ + "/out";
    options.target.runs_directory = runs_;
    std::filesystem::create_directory(directory_);
    const auto merged = RunMerge(disk_, world_.communicator(), options);
    EXPECT_TRUE(merged.has_value()) << ErrorOf(merged).ToString();
    whole_ = ReadSmallFile(disk_, catalog_, kLimit).value();
  }

  // What is where the catalog should be.
  void Put(const std::string& bytes) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    if (!bytes.empty()) {
      ASSERT_TRUE(WriteNewFile(disk_, catalog_, bytes).has_value());
    }
  }

  Status Recover(FileSystem& files) {
    const auto outcome = RecoverCatalog(files, {catalog_, runs_, true});
    return outcome ? Status() : Status(Fail(outcome.error()));
  }

  bool Keeps(const std::string& bytes) {
    const Tree tree = ReadTree(disk_, directory_);
    return bytes.empty() ||
           std::ranges::any_of(tree, [&](const auto& file) { return file.second == bytes; });
  }

  bool Climb(const std::string& bytes, FaultFileSystem::Repeat repeat, uint64_t n) {
    Put(bytes);
    FaultFileSystem files(disk_);
    files.FailAt(n, World::ErrnoOf(n), repeat);
    const Status status = Recover(files);
    SCOPED_TRACE("call " + std::to_string(n) + ": " + (files.hit() ? files.log()[n] : "none"));
    EXPECT_TRUE(status.has_value() || files.hit());
    EXPECT_TRUE(Keeps(bytes)) << "the damaged file is lost";
    const Status again = Recover(disk_);
    EXPECT_TRUE(again.has_value()) << ErrorOf(again).ToString();
    const auto catalog = Catalog::Open(catalog_);
    EXPECT_TRUE(catalog.has_value()) << ErrorOf(catalog).ToString();
    if (!catalog) return files.hit();
    EXPECT_TRUE((*catalog)->CheckIntegrity().has_value());
    EXPECT_EQ((*catalog)->RunIds().value().size(), 1u);
    EXPECT_TRUE(Keeps(bytes)) << "the damaged file is lost";
    return files.hit();
  }

  void ClimbAll(const std::string& bytes) {
    for (const auto repeat : {FaultFileSystem::Repeat::kOnce, FaultFileSystem::Repeat::kForever}) {
      uint64_t n = 0;
      while (Climb(bytes, repeat, n)) ++n;
      EXPECT_GT(n, 10u) << "hardly anything was disturbed";
    }
  }

  static constexpr uint64_t kLimit = uint64_t{1} << 24;

  FileSystem& disk_ = PosixFileSystem();
  World world_;
  TemporaryDirectory temporary_;
  std::string root_ = temporary_.path();
  std::string directory_ = root_ + "/db";
  std::string catalog_ = directory_ + "/catalog.sqlite";
  std::string runs_ = root_ + "/runs";
  std::string whole_;
};

TEST_F(RecoverLadder, OfALostCatalog) { ClimbAll(""); }

TEST_F(RecoverLadder, OfADamagedCatalog) {
  std::string damaged = whole_;
  const std::string place = "/in/base";
  for (size_t at = damaged.find(place); at != std::string::npos; at = damaged.find(place, at + 1))
    damaged[at + 1] = 'I';
  ASSERT_NE(damaged, whole_);
  ClimbAll(damaged);
}

}  // namespace
}  // namespace mergepipe
