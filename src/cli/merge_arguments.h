#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "mergepipe/run/merge.h"
#include "mergepipe/run/records.h"

namespace mergepipe {

/// Refuses what CLI11 would wrap or cut: "-1", "2e3", 2^64.
CLI::Validator WholeNumber();

/// Refuses a --block-size that no plan can have.
void CheckBlockSize(uint64_t block_size, ProblemList& problems);

/// Adds --db, with its default from the environment.
void AddCatalogOption(CLI::App& app, std::string& catalog);
/// Adds --runs-dir.
void AddRunsOption(CLI::App& app, std::string& runs_directory);
void AddNoResumeOption(CLI::App& app, bool& resume);
/// Adds --threads, --memory-mb and --progress.
struct LimitArguments {
  int threads = 0;  ///< 0: the cores given to this rank
  double memory_mb = 2048;
  std::string progress = "auto";

  void Add(CLI::App& app);
  ExecLimits ToLimits() const;
  int Threads() const;
};

/// Adds --gather.
struct GatherArgument {
  std::string mode = "auto";

  void Add(CLI::App& app, const char* group);
  GatherMode Mode() const;
};

/// The options of `merge` and `plan`, as they are typed.
struct MergeArguments {
  MergeOptions options;
  LimitArguments limits;
  double density = 0;
  std::vector<double> weights;
  bool no_normalize = false;
  std::string trim_scope = "tensor";
  double budget_mb = 906;
  bool no_budget = false;
  double resident_mb = 1280;
  std::string out_dtype = "same";
  std::string analyze = "auto";
  std::string nonfinite = "error";
  std::string missing = "error";
  std::string extra = "error";
  std::string device = "cpu";
  std::string output = "full";
  GatherArgument gather;

  /// `needs_target`: --out is required.
  void Add(CLI::App& app, bool needs_target);
  /// Checks and converts; all problems are reported together.
  Result<MergeOptions> ToOptions() const;

 private:
  void AddPlaces(CLI::App& app, bool needs_target);
  void AddStrategy(CLI::App& app, const char* group);
  void AddTensorRules(CLI::App& app, const char* group);
  void AddBudget(CLI::App& app, const char* group);
  void AddScores(CLI::App& app, const char* group);
  void AddExecution(CLI::App& app, const char* group);
  void SetStrategy(StrategyOptions& strategy, ProblemList& problems) const;

  CLI::Option* density_option_ = nullptr;
};

}  // namespace mergepipe
