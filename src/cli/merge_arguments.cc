#include "cli/merge_arguments.h"

#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "cli/stop_signal.h"
#include "mergepipe/base/text.h"
#include "mergepipe/kernels/parallel.h"
#include "mergepipe/strategy/strategy.h"

namespace mergepipe {
namespace {

constexpr double kMaxMb = 1e12;

int PositiveFromEnvironment(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::max(0, std::atoi(text));
}

// The cores given to this rank: OMP_NUM_THREADS if set; else the affinity mask, shared with the
// other ranks of the node where the launcher binds none of them.
int DefaultThreads() {
  if (const int asked = PositiveFromEnvironment("OMP_NUM_THREADS"); asked > 0) return asked;
  const int cores = AvailableThreads();
  const int local_ranks = PositiveFromEnvironment("OMPI_COMM_WORLD_LOCAL_SIZE");
  const bool unbound = cores >= static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  return unbound && local_ranks > 1 ? std::max(1, cores / local_ranks) : cores;
}

uint64_t BytesOfMb(double mb) {
  return static_cast<uint64_t>(std::floor(mb * static_cast<double>(kMiB)));
}

void CheckRange(const char* option, double value, bool good, const char* remedy,
                ProblemList& problems) {
  if (!good) problems.Add(option, fmt::format("{} is out of range", value), remedy);
}

// A feature that the command line keeps a place for.
void CheckOnly(const char* option, const std::string& value, const char* supported,
               const char* later, ProblemList& problems) {
  if (value == supported) return;
  problems.Add(option, Quote(value) + " is not supported" + later,
               std::string("use ") + option + " " + supported);
}

AnalyzeMode ParseAnalyzeMode(const std::string& text) {
  if (text == "full") return AnalyzeMode::kFull;
  if (text == "probe") return AnalyzeMode::kProbe;
  return text == "none" ? AnalyzeMode::kNone : AnalyzeMode::kAuto;
}

std::optional<DType> ParseOutDType(const std::string& text) {
  if (text == "f32") return DType::kF32;
  if (text == "f16") return DType::kF16;
  if (text == "bf16") return DType::kBF16;
  return std::nullopt;
}

}  // namespace

CLI::Validator WholeNumber() {
  return CLI::Validator(
      [](const std::string& text) -> std::string {
        uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool good = error == std::errc() && end == text.data() + text.size();
        return good ? "" : Quote(text) + " is not a whole number from 0 to 2^64 - 1";
      },
      "");
}

void CheckBlockSize(uint64_t block_size, ProblemList& problems) {
  if (block_size >= 1 && block_size <= kMaxBlockSize) return;
  problems.Add("--block-size", fmt::format("{} is out of range", block_size),
               fmt::format("give 1 to {} elements", kMaxBlockSize));
}

void AddCatalogOption(CLI::App& app, std::string& catalog) {
  const char* from_environment = std::getenv("MERGEPIPE_DB");
  catalog = from_environment != nullptr && *from_environment != '\0' ? from_environment
                                                                     : "mergedb.sqlite";
  app.add_option("--db", catalog,
                 "catalog file; made if absent [$MERGEPIPE_DB, else mergedb.sqlite]");
}

void AddRunsOption(CLI::App& app, std::string& runs_directory) {
  app.add_option("--runs-dir", runs_directory, "where run folders go")->capture_default_str();
}

void LimitArguments::Add(CLI::App& app) {
  app.add_option("--threads", threads, "threads of each rank [the cores given to it]")
      ->check(CLI::Range(1, 4096));
  app.add_option("--memory-mb", memory_mb, "memory of each rank, in MiB")
      ->capture_default_str()
      ->check(CLI::Range(1.0, kMaxMb));
  app.add_option("--progress", progress,
                 "auto (a bar on a terminal, else a line every few seconds), plain, none")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "plain", "none"}));
}

void GatherArgument::Add(CLI::App& app, const char* group) {
  app.add_option("--gather", mode,
                 "who writes, where there are several ranks: shared (each its part), root (rank 0 "
                 "for all), auto (shared where all ranks see --out)")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "shared", "root"}))
      ->group(group);
}

GatherMode GatherArgument::Mode() const {
  if (mode == "shared") return GatherMode::kShared;
  return mode == "root" ? GatherMode::kRoot : GatherMode::kAuto;
}

void AddNoResumeOption(CLI::App& app, bool& resume) {
  app.add_flag("!--no-resume", resume,
               "start anew, also if an earlier attempt at this output has finished a part of it");
}

int LimitArguments::Threads() const { return threads > 0 ? threads : DefaultThreads(); }

ExecLimits LimitArguments::ToLimits() const {
  return {Threads(), BytesOfMb(memory_mb), nullptr, &StopRequested()};
}

void MergeArguments::Add(CLI::App& app, bool needs_target) {
  AddPlaces(app, needs_target);
  AddStrategy(app, "Merge");
  AddTensorRules(app, "Merge");
  AddBudget(app, "Budget");
  AddScores(app, "Budget");
  AddExecution(app, "Execution");
}

void MergeArguments::AddPlaces(CLI::App& app, bool needs_target) {
  MergeTarget& target = options.target;
  AddCatalogOption(app, options.inputs.catalog);
  app.add_option("--base", options.inputs.base, "base model: a registered id, or a path")
      ->required();
  app.add_option("--experts", options.inputs.experts, "expert models: registered ids, or paths")
      ->required();
  app.add_option("--out", target.directory, "output directory")->required(needs_target);
  app.add_option("--model-id", target.model_id,
                 "the output's name in the catalog [the directory's name]");
  AddRunsOption(app, target.runs_directory);
  app.add_flag("--overwrite", target.overwrite, "replace an earlier output at --out");
  AddNoResumeOption(app, target.resume);
}

void MergeArguments::AddStrategy(CLI::App& app, const char* group) {
  PlanOptions& plan = options.plan;
  app.add_option("--strategy", plan.strategy.name, "how deltas are merged: ties, avg, dare")
      ->capture_default_str()
      ->group(group);
  density_option_ = app.add_option("--density,--ties-thr", density,
                                   "kept share of each delta, in (0, 1] [ties 0.6, dare 0.5]")
                        ->group(group);
  app.add_option("--weights", weights, "one weight an expert [1 each]")->group(group);
  app.add_option("--lambda", plan.strategy.lambda, "scale of the merged delta")
      ->capture_default_str()
      ->group(group);
  app.add_option("--seed", plan.strategy.seed, "of dare's draws")
      ->capture_default_str()
      ->check(WholeNumber())
      ->group(group);
  app.add_flag("--no-normalize", no_normalize, "do not divide by the sum of weights")->group(group);
  app.add_option("--trim-scope", trim_scope, "ties: rank magnitudes in the tensor or in the block")
      ->capture_default_str()
      ->check(CLI::IsMember({"tensor", "block"}))
      ->group(group);
}

void MergeArguments::AddTensorRules(CLI::App& app, const char* group) {
  app.add_option("--out-dtype", out_dtype, "of float tensors")
      ->capture_default_str()
      ->check(CLI::IsMember({"same", "f32", "f16", "bf16"}))
      ->group(group);
  app.add_option("--nonfinite", nonfinite, "what to do about NaN and infinity")
      ->capture_default_str()
      ->check(CLI::IsMember({"error", "allow"}))
      ->group(group);
  app.add_option("--missing", missing, "an expert lacks a tensor: refuse, or keep the base's")
      ->capture_default_str()
      ->check(CLI::IsMember({"error", "base"}))
      ->group(group);
  app.add_option("--extra", extra, "an expert has a tensor that the base lacks: refuse, or drop it")
      ->capture_default_str()
      ->check(CLI::IsMember({"error", "drop"}))
      ->group(group);
}

void MergeArguments::AddBudget(CLI::App& app, const char* group) {
  PlanOptions& plan = options.plan;
  auto* budget =
      app.add_option("--io-budget-mb", budget_mb, "expert bytes that may be read, in MiB")
          ->capture_default_str()
          ->group(group);
  app.add_flag("--no-budget", no_budget, "read whatever --top-p allows")
      ->excludes(budget)
      ->group(group);
  app.add_option("--top-p", plan.top_p,
                 "largest share of output blocks that may be touched, in (0, 1]")
      ->capture_default_str()
      ->group(group);
  app.add_option("--block-size", plan.block_size, "elements of a block")
      ->capture_default_str()
      ->check(WholeNumber())
      ->group(group);
}

void MergeArguments::AddScores(CLI::App& app, const char* group) {
  PlanOptions& plan = options.plan;
  app.add_option("--scoring", plan.scoring,
                 "how blocks are ranked: l2cos, l2, abs, uniform (by a hash, for comparison)")
      ->capture_default_str()
      ->group(group);
  app.add_option(
         "--analyze", analyze,
         "where scores come from if the catalog lacks them: probe (= auto) reads samples, full "
         "reads everything first; what they read counts against the budget; none refuses")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "full", "probe", "none"}))
      ->group(group);
  app.add_flag("--allow-empty", options.allow_empty,
               "a budget too small to read anything gives a copy of the base")
      ->group(group);
  app.add_option("--resident-mb", resident_mb,
                 "a tensor whose selected expert bytes fit here is read once, MiB")
      ->capture_default_str()
      ->group(group);
}

void MergeArguments::AddExecution(CLI::App& app, const char* group) {
  app.add_option("--device", device, "cpu")->capture_default_str()->group(group);
  app.add_option("--output", output, "full, or sparse: only the blocks that the merge touches")
      ->capture_default_str()
      ->check(CLI::IsMember({"full", "sparse"}))
      ->group(group);
  gather.Add(app, group);
  limits.Add(app);
}

void MergeArguments::SetStrategy(StrategyOptions& strategy, ProblemList& problems) const {
  const auto row = FindStrategy(strategy.name);
  if (!row) return problems.Add(row.error());
  const size_t experts = options.inputs.experts.size();
  strategy.density = density_option_->count() > 0 ? density : (*row)->default_density;
  strategy.weights = weights.empty() ? std::vector<double>(experts, 1.0) : weights;
  strategy.normalize = !no_normalize;
  strategy.trim_by_block = trim_scope == "block";
  if (strategy.weights.size() != experts) {
    return problems.Add("--weights",
                        fmt::format("has {} numbers for {} experts", weights.size(), experts),
                        "give one weight an expert");
  }
  if (const Status good = (*row)->check(strategy); !good) problems.Add(good.error());
}

Result<MergeOptions> MergeArguments::ToOptions() const {
  MergeOptions result = options;
  PlanOptions& plan = result.plan;
  ProblemList problems;
  CheckOnly("--device", device, "cpu", ": mergepipe runs on CPUs", problems);
  CheckRange("--top-p", plan.top_p, plan.top_p > 0 && plan.top_p <= 1, "give a share in (0, 1]",
             problems);
  CheckRange("--io-budget-mb", budget_mb, budget_mb >= 0 && budget_mb <= kMaxMb,
             "give MiB, 0 or more, or --no-budget", problems);
  CheckRange("--resident-mb", resident_mb, resident_mb >= 0 && resident_mb <= kMaxMb,
             "give MiB, 0 or more", problems);
  CheckBlockSize(plan.block_size, problems);
  SetStrategy(plan.strategy, problems);
  MERGEPIPE_RETURN_IF_ERROR(problems.ToStatus(ErrorKind::kUsage));

  if (!no_budget) plan.budget_bytes = BytesOfMb(budget_mb);
  plan.resident_bytes = BytesOfMb(resident_mb);
  plan.out_dtype = ParseOutDType(out_dtype);
  plan.allow_nonfinite = nonfinite == "allow";
  if (missing == "base") plan.missing = MismatchPolicy::kBase;
  if (extra == "drop") plan.extra = MismatchPolicy::kDrop;
  result.analyze = ParseAnalyzeMode(analyze);
  if (output == "sparse") result.target.form = OutputForm::kSparse;
  result.target.gather = gather.Mode();
  result.limits = limits.ToLimits();
  return result;
}

}  // namespace mergepipe
