#include "run/ladder_world.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "mergepipe/base/units.h"
#include "mergepipe/catalog/catalog.h"
#include "support/error_of.h"

namespace mergepipe::test {
namespace {

constexpr std::array kNumbers = {EIO, ENOSPC, EDQUOT, EINTR};

void ReadInto(FileSystem& files, const std::string& root, const std::string& prefix, Tree& tree) {
  const auto entries = files.List(JoinPath(root, prefix)).value();
  for (const DirectoryEntry& entry : entries) {
    const std::string name = prefix + entry.name;
    if (entry.kind == FileKind::kDirectory) {
      ReadInto(files, root, name + "/", tree);
    } else {
      tree[name] = ReadSmallFile(files, JoinPath(root, name), kMiB).value();
    }
  }
}

void MakeDurableDirectory(FileSystem& files, const std::string& path) {
  if (path == "/") return;
  MakeDurableDirectory(files, ParentPath(path));
  ASSERT_TRUE(files.CreateDirectory(path).has_value());
  ASSERT_TRUE(files.SyncDirectory(ParentPath(path)).has_value());
}

Tree MakeInputs() {
  MemoryFileSystem disk;
  DemoOptions demo;
  demo.directory = "/in";
  demo.shards = 2;
  EXPECT_TRUE(MakeDemoFamily(disk, demo).has_value());
  return ReadTree(disk, "/in");
}

}  // namespace

Tree ReadTree(FileSystem& files, const std::string& directory) {
  Tree tree;
  if (files.Exists(directory).value()) ReadInto(files, directory, "", tree);
  return tree;
}

void WriteTree(FileSystem& files, const std::string& directory, const Tree& tree) {
  MakeDurableDirectory(files, directory);
  for (const auto& [name, bytes] : tree) {
    const std::string path = JoinPath(directory, name);
    MakeDurableDirectory(files, ParentPath(path));
    ASSERT_TRUE(WriteNewFile(files, path, bytes).has_value());
    ASSERT_TRUE(files.SyncDirectory(ParentPath(path)).has_value());
  }
}

Tree WithoutManifest(Tree tree) {
  tree.erase("manifest.json");
  return tree;
}

const Tree& World::Inputs() {
  static const Tree kInputs = MakeInputs();
  return kInputs;
}

std::filesystem::path World::FastPlace() {
  const std::filesystem::path memory = "/dev/shm";
  return ::access(memory.c_str(), W_OK | X_OK) == 0 ? memory
                                                    : std::filesystem::temp_directory_path();
}

World::World() {
  WriteTree(disk_, "/in", Inputs());
  MakeDurableDirectory(disk_, "/work");
}

MergeOptions World::Options(bool other) const {
  MergeOptions options;
  options.inputs = {catalog_, "/in/base", {"/in/expert_1", "/in/expert_2"}};
  options.target.directory = OutputDirectory();
  options.target.runs_directory = RunsDirectory();
  options.plan.block_size = 1000;
  options.plan.top_p = 0.5;
  options.plan.strategy.weights = {1, other ? 2.0 : 1.0};
  options.analyze = analyze;
  options.limits = {.threads = 2, .memory_bytes = uint64_t{1} << 30};
  return options;
}

int World::ErrnoOf(uint64_t n) { return kNumbers.at(n % kNumbers.size()); }

void World::Disturb(Disturbance how, uint64_t n) {
  files_.FailAt(files_.operations() + n, ErrnoOf(n),
                how == Disturbance::kError ? FaultFileSystem::Repeat::kOnce
                                           : FaultFileSystem::Repeat::kForever);
}

void World::Settle(Disturbance how, uint64_t seed) {
  files_.Heal();
  if (how == Disturbance::kPowerLoss) disk_.Crash();
  if (how == Disturbance::kPowerLossInPart) disk_.Crash(seed);
}

void World::ExpectCatalogWhole() const {
  const auto opened = Catalog::OpenIfExists(catalog_);
  ASSERT_TRUE(opened.has_value()) << ErrorOf(opened).ToString();
  if (*opened == nullptr) return;
  const Status whole = (*opened)->CheckIntegrity();
  EXPECT_TRUE(whole.has_value()) << ErrorOf(whole).ToString();
}

void World::ExpectTold(const Error& error, uint64_t n) const {
  const Error fault = SystemError(ErrnoOf(n), "", "");
  EXPECT_EQ(error.kind(), fault.kind()) << error.ToString();
  ASSERT_EQ(error.problems().size(), 1u) << error.ToString();
  const std::string call = files_.log()[n];
  const std::string path = call.substr(call.rfind(' ') + 1);
  EXPECT_NE(error.ToString().find(path), std::string::npos) << error.ToString();
}

}  // namespace mergepipe::test
