// Plans the merge of a family in the shape of Llama-3.1-405B with many experts, from made-up
// statistics (as they come, or read from a catalog), and prints times and peak memory as JSON.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/bench_catalog.h"
#include "bench/bench_slices.h"
#include "bench/made_up_statistics.h"
#include "mergepipe/plan/partition.h"
#include "mergepipe/plan/plan_codec.h"
#include "plan/llama_shapes.h"

namespace mergepipe {
namespace {

using test::Family;
using test::MadeUpStatistics;

// As many as Llama-3.1-405B has.
constexpr size_t kFiles = 191;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Adds up the time that another source takes.
class TimedStatistics final : public StatisticsSource {
 public:
  explicit TimedStatistics(StatisticsSource& source) : source_(source) {}

  StatisticsKind KindOf(uint32_t expert) const override { return source_.KindOf(expert); }
  Result<std::vector<BlockStatistics>> OfExpert(uint32_t expert, uint32_t tensor) override {
    const auto start = Clock::now();
    auto blocks = source_.OfExpert(expert, tensor);
    seconds_ += SecondsSince(start);
    return blocks;
  }
  Result<std::vector<BaseBlockStatistics>> OfBase(uint32_t tensor) override {
    const auto start = Clock::now();
    auto blocks = source_.OfBase(tensor);
    seconds_ += SecondsSince(start);
    return blocks;
  }
  double seconds() const { return seconds_; }

 private:
  StatisticsSource& source_;
  double seconds_ = 0;
};

struct Arguments {
  std::string strategy = "ties";
  std::string scoring = "l2cos";
  size_t experts = 20;
  uint64_t budget_mib = 8192;
  double top_p = PlanOptions().top_p;
  int ranks = 1024;
  bool sparse = false;
  std::string catalog;  // empty: statistics are made while planning
  bool make_only = false;
};

Family MakeLlamas(const Arguments& arguments) {
  Family family = test::MakeFamily(test::LlamaTensors(test::kLlama405B), arguments.experts,
                                   PlanOptions().block_size);
  test::SplitIntoFiles(family.base, kFiles);
  for (ModelRecord& expert : family.experts) test::SplitIntoFiles(expert, kFiles);
  family.options = PlanOptions();
  family.options.strategy.name = arguments.strategy;
  family.options.scoring = arguments.scoring;
  family.options.top_p = arguments.top_p;
  family.options.budget_bytes = arguments.budget_mib * kMiB;
  family.rounds = arguments.strategy == "ties" ? 2 : 0;
  return family;
}

rusage Usage() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage;
}

double PeakMiB() { return static_cast<double>(Usage().ru_maxrss) / 1024; }

// Of all threads, user and system.
double CpuSeconds() {
  const rusage usage = Usage();
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct TimedPlan {
  Plan plan;
  std::shared_ptr<StatisticsSource> statistics;
  double seconds = 0;
  double cpu_seconds = 0;
  double seconds_statistics = 0;  // part of `seconds`
};

// Opening the catalog is a part of the planning.
Result<TimedPlan> PlanFamily(const Family& family, PlanInput input, const std::string& catalog) {
  TimedPlan timed;
  const double cpu_start = CpuSeconds();
  const auto start = Clock::now();
  std::shared_ptr<StatisticsSource>& source = timed.statistics;
  source = std::make_shared<MadeUpStatistics>(family);
  if (!catalog.empty()) {
    MERGEPIPE_ASSIGN_OR_RETURN(source, test::OpenBenchCatalog(catalog, family, input));
  }
  TimedStatistics statistics(*source);
  input.statistics = &statistics;
  MERGEPIPE_ASSIGN_OR_RETURN(timed.plan, MakePlan(input));
  timed.seconds = SecondsSince(start);
  timed.cpu_seconds = CpuSeconds() - cpu_start;
  timed.seconds_statistics = statistics.seconds();
  return timed;
}

PlanInput InputFor(const Family& family) {
  PlanInput input = family.Input();
  const size_t experts = family.experts.size();
  if (family.options.strategy.name == "avg")
    input.coefficients.emplace(experts, 1.0 / static_cast<double>(experts));
  return input;
}

Result<nlohmann::ordered_json> MeasurePlanning(const Arguments& arguments, const Family& family) {
  MERGEPIPE_ASSIGN_OR_RETURN(const TimedPlan timed,
                             PlanFamily(family, InputFor(family), arguments.catalog));
  const Plan& plan = timed.plan;
  auto start = Clock::now();
  const std::string text = SerializePlan(plan);
  const std::string hash = PlanHash(plan);
  const double seconds_text = SecondsSince(start);
  start = Clock::now();
  const OutputForm form = arguments.sparse ? OutputForm::kSparse : OutputForm::kFull;
  PartitionPlan(plan, arguments.ranks,
                arguments.sparse ? PlanWork::kSparseMerge : PlanWork::kMerge);
  const double seconds_partition = SecondsSince(start);
  const double plan_peak_mib = PeakMiB();
  MERGEPIPE_ASSIGN_OR_RETURN(
      const test::MadeSlices slices,
      test::MakeSlicesOf(plan, family, form, arguments.ranks, *timed.statistics));
  return nlohmann::ordered_json{
      {"pairs", plan.MergeBlocks() * family.experts.size()},
      {"seconds_plan", timed.seconds},
      {"cpu_seconds_plan", timed.cpu_seconds},
      {"seconds_statistics", timed.seconds_statistics},
      {"seconds_text", seconds_text},
      {"seconds_partition", seconds_partition},
      {"seconds_slices", slices.seconds},
      {"seconds_all", timed.seconds + seconds_text + slices.seconds},
      {"slices_mib", static_cast<double>(slices.bytes) / static_cast<double>(kMiB)},
      {"largest_slice_mib", static_cast<double>(slices.largest) / static_cast<double>(kMiB)},
      {"peak_mib", plan_peak_mib},
      {"peak_with_slices_mib", PeakMiB()},
      {"text_bytes", text.size()},
      {"planned_bytes", plan.PlannedBytes()},
      {"touched_blocks", plan.TouchedBlocks()},
      {"objective_ratio", plan.objective / plan.objective_bound},
      {"bound", plan.bound ? nlohmann::ordered_json(plan.bound->total) : nullptr},
      {"plan_hash", hash},
  };
}

// The catalog, unless it is there.
Status MakeCatalog(const std::string& path, const Family& family) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool exists, PosixFileSystem().Exists(path));
  if (exists) return {};
  MadeUpStatistics statistics(family);
  return test::MakeBenchCatalog(path, family, statistics);
}

Result<nlohmann::ordered_json> Measure(const Arguments& arguments) {
  const Family family = MakeLlamas(arguments);
  auto report = nlohmann::ordered_json::object();
  if (!arguments.catalog.empty()) MERGEPIPE_RETURN_IF_ERROR(MakeCatalog(arguments.catalog, family));
  if (!arguments.make_only) {
    MERGEPIPE_ASSIGN_OR_RETURN(report, MeasurePlanning(arguments, family));
  }
  if (arguments.catalog.empty()) return report;
  MERGEPIPE_ASSIGN_OR_RETURN(const test::CatalogSize size,
                             test::MeasureCatalog(arguments.catalog, family));
  report["catalog_bytes"] = size.bytes;
  report["bytes_per_million_blocks"] = size.bytes_per_million_blocks;
  return report;
}

int Run(const Arguments& arguments) {
  const auto report = Measure(arguments);
  if (!report) {
    std::cerr << report.error().ToString() << "\n";
    return 1;
  }
  std::cout << report->dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace mergepipe

int main(int argc, char** argv) {
  mergepipe::Arguments arguments;
  CLI::App app("Plans a merge of 405B-sized experts and prints what it took.");
  app.add_option("--strategy", arguments.strategy, "avg: with an error bound")
      ->check(CLI::IsMember({"ties", "avg"}));
  app.add_option("--scoring", arguments.scoring);
  app.add_option("--experts", arguments.experts)->check(CLI::PositiveNumber);
  app.add_option("--io-budget-mb", arguments.budget_mib);
  app.add_option("--top-p", arguments.top_p)->check(CLI::Range(0.0001, 1.0));
  app.add_option("--ranks", arguments.ranks)->check(CLI::PositiveNumber);
  app.add_flag("--sparse", arguments.sparse, "slices of a merge with sparse output");
  auto* catalog = app.add_option("--catalog", arguments.catalog,
                                 "read the statistics from this catalog, which is made if absent");
  app.add_flag("--make-only", arguments.make_only,
               "make the catalog without planning, so that peak_mib of the next run is planning's")
      ->needs(catalog);
  CLI11_PARSE(app, argc, argv);
  return mergepipe::Run(arguments);
}
