#pragma once

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/run/demo.h"
#include "mergepipe/run/merge.h"
#include "support/fault_file_system.h"
#include "support/memory_file_system.h"
#include "support/temporary_directory.h"

/// \file
/// A place for commands that are disturbed at one call after the other. Files are in memory, where
/// power can fail; the catalog, which SQLite keeps, is a real file.
namespace mergepipe::test {

/// Relative paths of all files below a directory, and their bytes.
using Tree = std::map<std::string, std::string>;
Tree ReadTree(FileSystem& files, const std::string& directory);
/// Makes `directory` with these files, all of it durable.
void WriteTree(FileSystem& files, const std::string& directory, const Tree& tree);
/// Without the record, which names its run.
Tree WithoutManifest(Tree tree);

/// How a command is disturbed.
enum class Disturbance {
  kError,            ///< one call fails; the command goes on as it sees fit
  kKill,             ///< from that call on nothing reaches the disk
  kPowerLoss,        ///< likewise, and what was not synced is lost
  kPowerLossInPart,  ///< likewise, but the kernel may have written some of that
};

/// The inputs of a tiny family at /in, ready to be merged into /work/out.
class World {
 public:
  World();

  /// A merge of them. With `other` its weights are not those of the one that is disturbed.
  MergeOptions Options(bool other = false) const;
  AnalyzeMode analyze = AnalyzeMode::kAuto;

  MemoryFileSystem& disk() { return disk_; }
  FaultFileSystem& files() { return files_; }
  Communicator& communicator() { return *communicator_; }
  const std::string& catalog() const { return catalog_; }
  std::string OutputDirectory() const { return "/work/out"; }
  std::string RunsDirectory() const { return "/work/runs"; }
  Tree Output() { return ReadTree(disk_, OutputDirectory()); }

  /// Call number `n` fails, of which each in turn has another errno.
  void Disturb(Disturbance how, uint64_t n);
  /// The errno of call number `n`.
  static int ErrnoOf(uint64_t n);
  /// After the command: what the disturbance leaves. From here on all works again.
  void Settle(Disturbance how, uint64_t seed);

  /// The catalog is absent, or passes every check.
  void ExpectCatalogWhole() const;
  /// An error of call number `n` is told in one line, as what it is, with the file that it
  /// concerns.
  void ExpectTold(const Error& error, uint64_t n) const;

 private:
  static const Tree& Inputs();
  // Where SQLite's syncs take no time, if there is such a place.
  static std::filesystem::path FastPlace();

  MemoryFileSystem disk_;
  FaultFileSystem files_{disk_};
  TemporaryDirectory directory_{FastPlace()};
  std::string catalog_ = directory_ / "catalog.sqlite";
  std::unique_ptr<Communicator> communicator_ = LocalCommunicator();
};

}  // namespace mergepipe::test
