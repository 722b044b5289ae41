#include "mergepipe/run/recover.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "mergepipe/base/text.h"
#include "mergepipe/catalog/catalog.h"
#include "mergepipe/catalog/salvage.h"
#include "mergepipe/run/models.h"
#include "run/leftovers.h"
#include "run/recorded_runs.h"

namespace mergepipe {
namespace {

using Found = RecoverOutcome::Found;

// The file itself: a link must not change names with a new file.
std::string FileOf(const std::string& path) {
  std::error_code error;
  const auto file = std::filesystem::canonical(path, error);
  return error ? path : file.string();
}

bool Contains(const std::vector<std::string>& ids, const std::string& id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// What a catalog knows: one that is open, or what was read from a damaged one.
class Known {
 public:
  explicit Known(Catalog& catalog) : catalog_(&catalog) {}
  explicit Known(const Salvage& salvage) : salvage_(salvage) {}

  Result<bool> HasRun(const std::string& id) const {
    if (catalog_ == nullptr) return Contains(salvage_.runs, id);
    MERGEPIPE_ASSIGN_OR_RETURN(const auto run, catalog_->FindRun(id));
    return run.has_value();
  }
  Result<bool> HasPlan(const std::string& id) const {
    if (catalog_ == nullptr) return Contains(salvage_.plans, id);
    MERGEPIPE_ASSIGN_OR_RETURN(const auto plan, catalog_->FindPlan(id));
    return plan.has_value();
  }

 private:
  Catalog* catalog_ = nullptr;
  Salvage salvage_;
};

// Adds what only the run folders know. `into` is null if nothing is to be changed.
Status AddRuns(const RecordedRuns& recorded, const Known& known, Catalog* into,
               RecoverOutcome& outcome) {
  for (const auto& [run, plan_text] : recorded.runs) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool has_plan, known.HasPlan(run.plan_id));
    MERGEPIPE_ASSIGN_OR_RETURN(const bool has_run, known.HasRun(run.run_id));
    if (!has_plan && !Contains(outcome.added_plans, run.plan_id)) {
      outcome.added_plans.push_back(run.plan_id);
      if (into != nullptr) {
        MERGEPIPE_RETURN_IF_ERROR(into->PutPlan(run.plan_id, run.plan_hash, plan_text));
      }
    }
    if (has_run) continue;
    outcome.added_runs.push_back(run.run_id);
    if (into != nullptr) MERGEPIPE_RETURN_IF_ERROR(into->PutRun(run));
  }
  for (const auto& [run_id, why] : recorded.left_out) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool has_run, known.HasRun(run_id));
    if (!has_run) outcome.left_out_runs.push_back(why);
  }
  return {};
}

void Note(const Salvage& salvage, RecoverOutcome& outcome) {
  outcome.models = salvage.models.size();
  outcome.plans = salvage.plans.size();
  outcome.runs = salvage.runs.size();
  outcome.statistics = salvage.statistics;
  outcome.lost = salvage.lost;
  outcome.lost_models = salvage.lost_models;
}

// A catalog beside the one that is damaged, removed again unless it takes its place.
class NewCatalog {
 public:
  static Result<std::unique_ptr<NewCatalog>> Make(FileSystem& files, const std::string& path) {
    auto made = std::unique_ptr<NewCatalog>(new NewCatalog(files, path));
    MERGEPIPE_ASSIGN_OR_RETURN(made->catalog_, Catalog::OpenOrCreate(path));
    return made;
  }
  ~NewCatalog() {
    catalog_.reset();
    if (placed_) return;
    static_cast<void>(files_.Remove(path_));
    static_cast<void>(files_.Remove(path_ + "-journal"));
  }
  NewCatalog(const NewCatalog&) = delete;
  NewCatalog& operator=(const NewCatalog&) = delete;

  Catalog& catalog() { return *catalog_; }

  /// Changes names with `path`, whose old file becomes `old_file`. A journal goes with the file
  /// that it belongs to: sqlite3 would play it into the new one.
  Status TakePlaceOf(const std::string& path, const std::string& old_file) {
    MERGEPIPE_RETURN_IF_ERROR(catalog_->CheckIntegrity());
    catalog_.reset();
    for (const char* suffix : {"-journal", "-wal", "-shm"}) {
      MERGEPIPE_ASSIGN_OR_RETURN(const bool there, files_.Exists(path + suffix));
      if (!there) continue;
      MERGEPIPE_RETURN_IF_ERROR(
          files_.Rename(path + suffix, old_file + suffix, RenameMode::kMustNotExist));
    }
    MERGEPIPE_RETURN_IF_ERROR(files_.Rename(path_, path, RenameMode::kExchange));
    placed_ = true;
    MERGEPIPE_RETURN_IF_ERROR(files_.Rename(path_, old_file, RenameMode::kMustNotExist));
    return files_.SyncDirectory(ParentPath(path));
  }

 private:
  NewCatalog(FileSystem& files, std::string path) : files_(files), path_(std::move(path)) {}

  FileSystem& files_;
  std::string path_;
  std::unique_ptr<Catalog> catalog_;
  bool placed_ = false;
};

// `name`, or that with a number: one that was killed in the same second has left its files.
Result<std::string> FreeName(FileSystem& files, const std::string& name) {
  std::string free = name;
  for (int n = 2;; ++n) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool taken, files.Exists(free));
    MERGEPIPE_ASSIGN_OR_RETURN(const bool journal, files.Exists(free + "-journal"));
    if (!taken && !journal) return free;
    free = name + "-" + std::to_string(n);
  }
}

// Another recovery may have been done while this one waited for the lock.
Status CheckSameFile(FileSystem& files, const std::string& path, const FileInfo& before) {
  MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo now, files.Stat(path));
  if (now.inode == before.inode && now.device == before.device) return {};
  return Fail(ErrorKind::kIo, path, "was replaced by another process", "run the command again");
}

Status Replace(FileSystem& files, const FileInfo& before, const RecordedRuns& recorded,
               RecoverOutcome& outcome) {
  const std::string& path = outcome.catalog;
  MERGEPIPE_ASSIGN_OR_RETURN(const auto damaged,
                             DamagedCatalog::Open(path, DamagedCatalog::Purpose::kReplace));
  MERGEPIPE_RETURN_IF_ERROR(CheckSameFile(files, path, before));
  const std::string timestamp = RunTimestampUtc();
  MERGEPIPE_ASSIGN_OR_RETURN(const std::string new_file,
                             FreeName(files, path + ".recovered-" + timestamp));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto made, NewCatalog::Make(files, new_file));
  MERGEPIPE_ASSIGN_OR_RETURN(const Salvage salvage, damaged->CopyTo(&made->catalog()));
  Note(salvage, outcome);
  MERGEPIPE_RETURN_IF_ERROR(AddRuns(recorded, Known(salvage), &made->catalog(), outcome));
  MERGEPIPE_ASSIGN_OR_RETURN(outcome.old_file, FreeName(files, path + ".damaged-" + timestamp));
  return made->TakePlaceOf(path, outcome.old_file);
}

Status LookAtDamaged(const RecordedRuns& recorded, RecoverOutcome& outcome) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto damaged,
                             DamagedCatalog::Open(outcome.catalog, DamagedCatalog::Purpose::kLook));
  MERGEPIPE_ASSIGN_OR_RETURN(const Salvage salvage, damaged->CopyTo(nullptr));
  Note(salvage, outcome);
  return AddRuns(recorded, Known(salvage), nullptr, outcome);
}

Status MakeAnew(const RecoverOptions& options, const RecordedRuns& recorded,
                RecoverOutcome& outcome) {
  if (recorded.runs.empty()) {
    return Fail(ErrorKind::kBadInput, options.catalog,
                "there is no such catalog, and no complete run under " +
                    Quote(options.runs_directory) + " to make one of",
                "give another --db or --runs-dir, or make an empty one with `mergepipe init-db`");
  }
  std::unique_ptr<Catalog> catalog;
  if (options.apply) {
    MERGEPIPE_ASSIGN_OR_RETURN(catalog, Catalog::OpenOrCreate(outcome.catalog));
  }
  return AddRuns(recorded, Known(Salvage()), catalog.get(), outcome);
}

bool MayFindOnlyLeftovers(const RecoverOptions& options, const RecoverOutcome& outcome) {
  return !options.outputs.empty() || !options.directories.empty() || !outcome.leftovers.empty();
}

// The catalog if it is whole. Nothing if it is damaged; then `damage` says what is wrong.
Result<std::unique_ptr<Catalog>> OpenIfWhole(const std::string& path, std::string& damage) {
  auto catalog = Catalog::OpenIfExists(path);
  const Status status = !catalog   ? Status(tl::unexpected(catalog.error()))
                        : *catalog ? (*catalog)->CheckIntegrity()
                                   : Status();
  if (status) return catalog;
  if (status.error().kind() != ErrorKind::kBadInput) return Fail(status.error());
  damage = status.error().problems().front().what;
  // Refuses what no recovery can help: another program's file, a newer schema.
  MERGEPIPE_RETURN_IF_ERROR(DamagedCatalog::Open(path, DamagedCatalog::Purpose::kLook));
  return nullptr;
}

Status RecoverTheCatalog(FileSystem& files, const RecoverOptions& options,
                         const RecordedRuns& recorded, RecoverOutcome& outcome) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool exists, files.Exists(outcome.catalog));
  std::optional<FileInfo> before;
  std::unique_ptr<Catalog> catalog;
  if (exists) {
    MERGEPIPE_ASSIGN_OR_RETURN(before, files.Stat(outcome.catalog));
    MERGEPIPE_ASSIGN_OR_RETURN(catalog, OpenIfWhole(outcome.catalog, outcome.damage));
  }
  if (catalog != nullptr)
    return AddRuns(recorded, Known(*catalog), options.apply ? catalog.get() : nullptr, outcome);
  if (!exists) {
    outcome.found = recorded.runs.empty() && MayFindOnlyLeftovers(options, outcome)
                        ? Found::kNothing
                        : Found::kAbsent;
    return outcome.found == Found::kNothing ? Status() : MakeAnew(options, recorded, outcome);
  }
  outcome.found = Found::kDamaged;
  return options.apply ? Replace(files, *before, recorded, outcome)
                       : LookAtDamaged(recorded, outcome);
}

// Adds where the outputs lie of runs that the catalog knows.
Status AddKnownPlaces(const RecoverOutcome& outcome, std::set<std::string>& directories) {
  if (outcome.found != Found::kWhole) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const auto catalog, Catalog::Open(outcome.catalog));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto ids, catalog->RunIds());
  for (const std::string& id : ids) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto run, catalog->FindRun(id));
    if (run) directories.insert(ParentPath(run->output_path));
  }
  return {};
}

// Where merges may have left something: here, and beside every output that a record names. A merge
// that was killed before any other was done is named by none.
Result<std::set<std::string>> DirectoriesOfOutputs(FileSystem& files, const RecoverOutcome& outcome,
                                                   const RecordedRuns& recorded) {
  std::set<std::string> directories = {AbsolutePath(".")};
  for (const RecordedRun& run : recorded.runs) directories.insert(ParentPath(run.run.output_path));
  MERGEPIPE_RETURN_IF_ERROR(AddKnownPlaces(outcome, directories));
  std::erase_if(directories, [&](const std::string& directory) {
    const auto info = files.Stat(directory);
    return !info || info->kind != FileKind::kDirectory;  // the disk may be unmounted
  });
  return directories;
}

Status FindAllLeftovers(FileSystem& files, const RecoverOptions& options,
                        std::set<std::string> directories, RecoverOutcome& outcome) {
  for (const std::string& output : options.outputs)
    directories.insert(ParentPath(AbsolutePath(output)));
  for (const std::string& directory : options.directories)
    directories.insert(AbsolutePath(directory));
  for (const std::string& directory : directories) {
    MERGEPIPE_ASSIGN_OR_RETURN(auto found, FindLeftoversIn(files, directory));
    outcome.leftovers.insert(outcome.leftovers.end(), found.begin(), found.end());
  }
  return {};
}

}  // namespace

bool RecoverOutcome::Changes() const {
  return ChangesCatalog() ||
         std::ranges::any_of(leftovers, [](const Leftover& one) { return one.kept.empty(); });
}

Result<RecoverOutcome> RecoverCatalog(FileSystem& files, const RecoverOptions& options) {
  RecoverOutcome outcome;
  outcome.catalog = FileOf(options.catalog);
  MERGEPIPE_ASSIGN_OR_RETURN(RecordedRuns recorded,
                             ReadRecordedRuns(files, options.runs_directory));
  MERGEPIPE_ASSIGN_OR_RETURN(outcome.leftovers, FindOrphanedRuns(files, options.runs_directory));
  std::erase_if(recorded.left_out, [&](const LeftOutRun& run) {
    return std::ranges::any_of(outcome.leftovers, [&](const Leftover& orphan) {
      return BaseName(orphan.path) == run.run_id;
    });
  });
  MERGEPIPE_RETURN_IF_ERROR(RecoverTheCatalog(files, options, recorded, outcome));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto directories,
                             DirectoriesOfOutputs(files, outcome, recorded));
  MERGEPIPE_RETURN_IF_ERROR(FindAllLeftovers(files, options, directories, outcome));
  // A journal goes before what it tells of: alone it would tell of nothing.
  if (options.apply) {
    for (auto one = outcome.leftovers.rbegin(); one != outcome.leftovers.rend(); ++one)
      Settle(files, *one);
  }
  return outcome;
}

}  // namespace mergepipe
