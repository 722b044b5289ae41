#include "cli/start_line.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace mergepipe {
namespace {

std::vector<int> Cores(int first, int count) {
  std::vector<int> cores(static_cast<size_t>(count));
  std::iota(cores.begin(), cores.end(), first);
  return cores;
}

RankPlacement On(const std::string& host, int threads, std::vector<int> cores, int host_cores) {
  return {host, threads, std::move(cores), host_cores};
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const LaunchInfo kByMpirun{.launched = true, .rank = 0, .size = 4, .job_tasks = 1};

TEST(StartLine, OneProcess) {
  EXPECT_EQ(StartLine({On("box", 1, Cores(0, 1), 1)}),
            "1 rank on 1 host (box): 1 thread, 1 core (0, not bound)");
  EXPECT_EQ(StartLine({On("box", 2, Cores(0, 4), 8)}),
            "1 rank on 1 host (box): 2 threads, 4 cores (0-3)");
}

TEST(StartLine, BoundRanksOnTwoHosts) {
  EXPECT_EQ(StartLine({On("n1", 2, Cores(0, 2), 4), On("n1", 2, Cores(2, 2), 4),
                       On("n2", 2, Cores(0, 2), 4), On("n2", 2, Cores(2, 2), 4)}),
            "4 ranks on 2 hosts (n1, n2): 2 threads each, 2 cores each (0-1; 2-3)");
}

TEST(StartLine, UnevenRanks) {
  EXPECT_EQ(StartLine({On("n1", 1, {0, 2, 3, 9}, 16), On("n1", 4, {5}, 16)}),
            "2 ranks on 1 host (n1): 1 to 4 threads each, 1 to 4 cores each (0,2-3,9; 5)");
}

TEST(StartLine, ManyRanksStayOneShortLine) {
  std::vector<RankPlacement> ranks;
  for (int host = 0; host < 256; ++host) {
    for (int i = 0; i < 8; ++i) {
      ranks.push_back(On("node" + std::to_string(host), 8, Cores(8 * i, 8), 64));
    }
  }
  EXPECT_EQ(StartLine(ranks),
            "2048 ranks on 256 hosts (node0, node1, node2, node3 and 252 more): 8 threads each, 8 "
            "cores each (0-7; 8-15; 16-23; 24-31; 4 more)");
  EXPECT_TRUE(StartWarnings(ranks, kByMpirun).empty());
}

TEST(StartWarnings, ARankWithFewerCoresThanThreads) {
  const auto warnings = StartWarnings(
      {On("n1", 2, Cores(0, 2), 4), On("n2", 2, {0}, 4), On("n2", 2, {1}, 4)}, kByMpirun);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_TRUE(warnings[0].starts_with(
      "rank 1 on host n2 has 1 core for 2 threads (and 1 rank more); give each rank"))
      << warnings[0];
  for (const char* remedy : {"-c", "SRUN_CPUS_PER_TASK", "--bind-to none", "--threads"}) {
    EXPECT_TRUE(Has(warnings[0], remedy)) << remedy;
  }
}

TEST(StartWarnings, RanksThatShareTheCoresOfAHost) {
  const std::vector<RankPlacement> ranks = {
      On("n1", 4, Cores(0, 4), 4), On("n2", 3, Cores(0, 4), 4), On("n2", 2, Cores(0, 4), 4)};
  const auto warnings = StartWarnings(ranks, kByMpirun);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_TRUE(warnings[0].starts_with("host n2: 2 ranks with 5 threads share 4 cores; "))
      << warnings[0];
}

TEST(StartWarnings, NoneWhereCoresSuffice) {
  EXPECT_TRUE(
      StartWarnings({On("n1", 2, Cores(0, 4), 4), On("n1", 2, Cores(0, 4), 4)}, kByMpirun).empty());
}

TEST(StartWarnings, OneProcessInAJobOfSeveralTasks) {
  const std::vector<RankPlacement> one = {On("n1", 1, {0}, 1)};
  LaunchInfo alone;
  EXPECT_TRUE(StartWarnings(one, alone).empty());
  alone.job_tasks = 8;
  const auto warnings = StartWarnings(one, alone);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_TRUE(Has(warnings[0], "8 tasks") && Has(warnings[0], "srun --mpi=pmix")) << warnings[0];
  alone.launched = true;  // mpirun -n 1 is meant so
  EXPECT_TRUE(StartWarnings(one, alone).empty());
}

}  // namespace
}  // namespace mergepipe
