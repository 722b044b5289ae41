#include "cli/start_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "mergepipe/base/log.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

constexpr size_t kMaxHosts = 4;
constexpr size_t kMaxMasks = 4;
constexpr const char* kMoreCores =
    "; give each rank as many cores as threads (srun -c N, which needs SRUN_CPUS_PER_TASK=N inside "
    "sbatch; mpirun --map-by slot:PE=N, or --bind-to none), or pass --threads";

std::string Count(size_t count, const char* unit) {
  return fmt::format("{} {}{}", count, unit, count == 1 ? "" : "s");
}

// "2 threads each", "1 to 2 threads each"; "2 threads" of one rank.
std::string CountOfEach(const std::vector<size_t>& counts, const char* unit) {
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  const std::string range = *least == *most ? "" : fmt::format("{} to ", *least);
  return range + Count(*most, unit) + (counts.size() == 1 ? "" : " each");
}

// "0-3,8" as taskset takes it.
std::string FormatCores(const std::vector<int>& cores) {
  std::string text;
  for (size_t i = 0; i < cores.size();) {
    size_t end = i + 1;
    while (end < cores.size() && cores[end] == cores[end - 1] + 1) ++end;
    if (!text.empty()) text += ',';
    text += std::to_string(cores[i]);
    if (end > i + 1) text += "-" + std::to_string(cores[end - 1]);
    i = end;
  }
  return text;
}

void AddIfNew(std::vector<std::string>& list, std::string text) {
  if (std::find(list.begin(), list.end(), text) == list.end()) list.push_back(std::move(text));
}

std::string FormatMasks(const std::vector<RankPlacement>& ranks) {
  std::vector<std::string> masks;
  for (const RankPlacement& rank : ranks) AddIfNew(masks, FormatCores(rank.cores));
  std::string text;
  for (size_t i = 0; i < std::min(masks.size(), kMaxMasks); ++i) {
    text += (i == 0 ? "" : "; ") + masks[i];
  }
  if (masks.size() > kMaxMasks) text += fmt::format("; {} more", masks.size() - kMaxMasks);
  const bool bound =
      std::any_of(ranks.begin(), ranks.end(), [](const auto& rank) { return rank.bound(); });
  return text + (bound ? "" : ", not bound");
}

// All that the ranks of one host have together.
struct HostLoad {
  size_t ranks = 0;
  size_t threads = 0;
  std::set<int> cores;
};

bool LacksCores(const RankPlacement& rank) {
  return static_cast<size_t>(rank.threads) > rank.cores.size();
}

std::string AndMore(size_t count, const char* unit) {
  return count == 0 ? "" : " (and " + Count(count, unit) + " more)";
}

std::optional<std::string> WarnOfRanks(const std::vector<RankPlacement>& ranks) {
  const auto first = std::find_if(ranks.begin(), ranks.end(), LacksCores);
  if (first == ranks.end()) return std::nullopt;
  const auto others = static_cast<size_t>(std::count_if(first + 1, ranks.end(), LacksCores));
  return fmt::format("rank {} on host {} has {} for {}{}{}", first - ranks.begin(), first->host,
                     Count(first->cores.size(), "core"),
                     Count(static_cast<size_t>(first->threads), "thread"), AndMore(others, "rank"),
                     kMoreCores);
}

std::optional<std::string> WarnOfHosts(const std::vector<RankPlacement>& ranks) {
  std::map<std::string, HostLoad> hosts;
  for (const RankPlacement& rank : ranks) {
    HostLoad& load = hosts[rank.host];
    ++load.ranks;
    load.threads += static_cast<size_t>(rank.threads);
    load.cores.insert(rank.cores.begin(), rank.cores.end());
  }
  std::erase_if(hosts,
                [](const auto& host) { return host.second.threads <= host.second.cores.size(); });
  if (hosts.empty()) return std::nullopt;
  const auto& [host, load] = *hosts.begin();
  return fmt::format("host {}: {} with {} share {}{}{}", host, Count(load.ranks, "rank"),
                     Count(load.threads, "thread"), Count(load.cores.size(), "core"),
                     AndMore(hosts.size() - 1, "host"), kMoreCores);
}

}  // namespace

std::string StartLine(const std::vector<RankPlacement>& ranks) {
  std::vector<std::string> hosts;
  std::vector<size_t> threads;
  std::vector<size_t> cores;
  for (const RankPlacement& rank : ranks) {
    AddIfNew(hosts, rank.host);
    threads.push_back(static_cast<size_t>(rank.threads));
    cores.push_back(rank.cores.size());
  }
  return fmt::format("{} on {} ({}): {}, {} ({})", Count(ranks.size(), "rank"),
                     Count(hosts.size(), "host"), JoinNames(hosts, kMaxHosts),
                     CountOfEach(threads, "thread"), CountOfEach(cores, "core"),
                     FormatMasks(ranks));
}

std::vector<std::string> StartWarnings(const std::vector<RankPlacement>& ranks,
                                       const LaunchInfo& launch) {
  std::vector<std::string> warnings;
  // The first is the more exact one.
  if (auto warning = WarnOfRanks(ranks)) {
    warnings.push_back(std::move(*warning));
  } else if (auto shared = WarnOfHosts(ranks)) {
    warnings.push_back(std::move(*shared));
  }
  if (!launch.launched && launch.job_tasks > 1) {
    warnings.push_back(
        fmt::format("the job has room for {} tasks, but this is a single process; start it with "
                    "`srun --mpi=pmix` or mpirun to use them all",
                    launch.job_tasks));
  }
  return warnings;
}

Status AnnounceStart(Communicator& communicator, int threads) {
  MERGEPIPE_ASSIGN_OR_RETURN(const std::vector<RankPlacement> ranks,
                             GatherPlacements(communicator, threads));
  if (!communicator.is_root()) return {};
  LogNote(StartLine(ranks));
  for (const std::string& warning : StartWarnings(ranks, DetectLauncher())) LogWarning(warning);
  return {};
}

}  // namespace mergepipe
