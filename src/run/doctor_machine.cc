#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"
#include "mergepipe/comm/placement.h"
#include "mergepipe/kernels/parallel.h"
#include "mergepipe/run/build.h"
#include "run/doctor_parts.h"

namespace mergepipe {
namespace {

constexpr uint64_t kDefaultMemory = uint64_t{2} << 30;  // of --memory-mb
constexpr uint64_t kFewFiles = 1024;
constexpr uint64_t kKiB = 1024;

// A number of bytes after `label` in /proc/meminfo, which has it in KiB.
std::optional<uint64_t> MemoryOf(const std::string& label) {
  std::ifstream in("/proc/meminfo");
  std::string word;
  uint64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    if (words >> word >> number && word == label) return number * kKiB;
  }
  return std::nullopt;
}

std::optional<uint64_t> NumberIn(const std::string& path) {
  std::ifstream in(path);
  uint64_t number = 0;
  if (in >> number) return number;  // "max" is no number
  return std::nullopt;
}

// What the control groups of this process allow it: the least of its own and those above it.
std::optional<uint64_t> GroupLimit() {
  std::ifstream in("/proc/self/cgroup");
  std::optional<uint64_t> least;
  for (std::string line; std::getline(in, line);) {
    const size_t path = line.find(":/");
    if (path == std::string::npos) continue;
    const bool v2 = line.starts_with("0::");
    if (!v2 && line.find("memory") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const char* name = v2 ? "/memory.max" : "/memory.limit_in_bytes";
    for (std::string group = line.substr(path + 1);; group.resize(group.rfind('/'))) {
      const auto limit = NumberIn(root + (group == "/" ? "" : group) + name);
      if (limit && (!least || *limit < *least)) least = limit;
      if (group.rfind('/') == std::string::npos) break;
    }
  }
  return least;
}

Finding MemoryFinding() {
  const auto total = MemoryOf("MemTotal:");
  const auto available = MemoryOf("MemAvailable:");
  if (!total || !available)
    return {"memory", Verdict::kNote, "the system does not tell how much there is"};
  std::string text =
      fmt::format("{}, {} available", FormatBytes(Bytes(*total)), FormatBytes(Bytes(*available)));
  uint64_t usable = *available;
  if (const auto limit = GroupLimit(); limit && *limit < *total) {
    text += fmt::format(", control group limited to {}", FormatBytes(Bytes(*limit)));
    usable = std::min(usable, *limit);
  }
  if (usable >= kDefaultMemory) return {"memory", Verdict::kOk, text};
  return {"memory", Verdict::kNote, text + ": less than the 2048 MiB that a rank may take",
          "pass a smaller --memory-mb, or ask the batch system for more"};
}

// Soft limits are raised to the hard ones at the start.
std::optional<uint64_t> LimitOf(__rlimit_resource resource) {
  struct rlimit limit {};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return limit.rlim_cur;
}

std::string LimitText(const std::optional<uint64_t>& bytes) {
  return bytes ? FormatBytes(Bytes(*bytes)) : "unlimited";
}

Finding LimitsFinding() {
  const auto files = LimitOf(RLIMIT_NOFILE);
  const auto space = LimitOf(RLIMIT_AS);
  const auto size = LimitOf(RLIMIT_FSIZE);
  Finding finding{
      "limits", Verdict::kOk,
      fmt::format("open files {}, address space {}, file size {}",
                  files ? std::to_string(*files) : "unlimited", LimitText(space), LimitText(size))};
  std::string remedy;
  if (files && *files < kFewFiles) remedy = "models of many files need more: raise ulimit -n";
  if (space && *space < 2 * kDefaultMemory)
    remedy = "raise ulimit -v, or pass a smaller --memory-mb";
  if (size) remedy = "weight files over the limit cannot be written: raise ulimit -f";
  if (!remedy.empty()) finding.verdict = Verdict::kNote;
  finding.remedy = remedy;
  return finding;
}

std::string Count(size_t count, const char* unit) {
  return fmt::format("{} {}{}", count, unit, count == 1 ? "" : "s");
}

std::string Libraries(const BuildInfo& build) {
  std::vector<std::string> names;
  for (const Library& library : build.libraries)
    names.push_back(library.name + " " + library.version);
  return JoinNames(names, names.size());
}

Finding LauncherFinding(const LaunchInfo& launch, const Communicator& communicator,
                        const std::vector<RankPlacement>& ranks) {
  std::vector<std::string> hosts;
  for (const RankPlacement& rank : ranks) {
    if (std::find(hosts.begin(), hosts.end(), rank.host) == hosts.end()) hosts.push_back(rank.host);
  }
  if (!launch.launched) {
    if (launch.job_tasks <= 1)
      return {"launcher", Verdict::kOk, "none: one process on " + hosts.front() + ", without MPI"};
    return {"launcher", Verdict::kNote,
            fmt::format("none: one process in a job with room for {} tasks", launch.job_tasks),
            "start it with `srun --mpi=pmix` or mpirun to use them all"};
  }
  const std::string text = fmt::format("{} on {} ({})", Count(ranks.size(), "rank"),
                                       Count(hosts.size(), "host"), JoinNames(hosts));
  if (launch.size <= 1 || launch.size == communicator.size())
    return {"launcher", Verdict::kOk, text};
  return {"launcher", Verdict::kProblem,
          fmt::format("{} processes were started, MPI finds {}", launch.size, communicator.size()),
          "start it with the mpirun of the MPI that it was built with", ErrorKind::kUsage};
}

struct HostCores {
  size_t ranks = 0;
  size_t given = 0;  // cores, counted for each rank
  int online = 0;
  std::set<int> cores;
};

void AddCores(const std::vector<RankPlacement>& ranks, Findings& findings) {
  std::map<std::string, HostCores> hosts;
  for (const RankPlacement& rank : ranks) {
    HostCores& host = hosts[rank.host];
    ++host.ranks;
    host.given += rank.cores.size();
    host.online = rank.host_cores;
    host.cores.insert(rank.cores.begin(), rank.cores.end());
  }
  for (const auto& [name, host] : hosts) {
    Finding finding{"cores", Verdict::kOk,
                    fmt::format("{} of {} on {} for {}", host.cores.size(), host.online, name,
                                Count(host.ranks, "rank"))};
    if (host.given > host.cores.size()) {
      finding.verdict = Verdict::kNote;
      finding.text += ": ranks share cores, and each starts a thread for every core it has";
      finding.remedy =
          "give each rank its own (mpirun --map-by slot:PE=N, srun -c N), or pass "
          "--threads";
    }
    findings.push_back(std::move(finding));
  }
}

// Two builds may differ in a bit.
void CompareBuilds(const std::vector<std::string>& builds, const std::vector<RankPlacement>& ranks,
                   Findings& findings) {
  for (size_t rank = 1; rank < builds.size(); ++rank) {
    if (builds[rank] == builds[0]) continue;
    findings.push_back({"program", Verdict::kProblem,
                        fmt::format("rank {} on {} runs {}, rank 0 runs {}", rank, ranks[rank].host,
                                    builds[rank], builds[0]),
                        "install the same program on all hosts", ErrorKind::kUsage});
    return;
  }
}

}  // namespace

void ExamineProgram(Findings& findings) {
  const BuildInfo& build = ThisBuild();
  findings.push_back({"program", Verdict::kOk,
                      fmt::format("mergepipe {}, commit {}", build.version, build.commit)});
  const bool fast = build.build_type == "Release" || build.build_type == "RelWithDebInfo";
  findings.push_back(
      {"compiler", fast ? Verdict::kOk : Verdict::kNote,
       fmt::format("{}, {}, kernels for {}", build.compiler, build.build_type, build.simd),
       fast ? "" : "slow: build it with `cmake --preset release`"});
  findings.push_back({"libraries", Verdict::kOk, Libraries(build)});
}

void ExamineLimits(Findings& findings) {
  findings.push_back(MemoryFinding());
  findings.push_back(LimitsFinding());
}

Status ExamineRanks(Communicator& communicator, Findings& findings) {
  MERGEPIPE_ASSIGN_OR_RETURN(const std::vector<RankPlacement> ranks,
                             GatherPlacements(communicator, AvailableThreads()));
  const BuildInfo& build = ThisBuild();
  const std::vector<std::string> builds =
      communicator.Gather("mergepipe " + build.version + ", commit " + build.commit);
  if (!communicator.is_root()) return {};
  findings.push_back(LauncherFinding(DetectLauncher(), communicator, ranks));
  AddCores(ranks, findings);
  CompareBuilds(builds, ranks, findings);
  return {};
}

}  // namespace mergepipe
