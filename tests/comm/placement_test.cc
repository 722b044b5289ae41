#include "mergepipe/comm/placement.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <string>

#include "support/error_of.h"

namespace mergepipe {
namespace {

const RankPlacement kPlacement{"node-17.cluster", 8, {0, 1, 64, 65, 4096}, 128};

void ExpectRefused(const std::string& bytes, const std::string& what) {
  const auto parsed = ParsePlacement(bytes);
  ASSERT_FALSE(parsed) << what;
  EXPECT_EQ(parsed.error().kind(), ErrorKind::kInternal) << what;
}

TEST(PlacementCodec, RoundTrip) {
  for (const RankPlacement& placement :
       {kPlacement, RankPlacement{}, RankPlacement{std::string("\0\xff", 2), -1, {-1}, 0}}) {
    const auto parsed = ParsePlacement(SerializePlacement(placement));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(*parsed, placement);
  }
}

TEST(PlacementCodec, RefusesEveryCut) {
  const std::string whole = SerializePlacement(kPlacement);
  for (size_t length = 0; length < whole.size(); ++length) {
    ExpectRefused(whole.substr(0, length), "cut at " + std::to_string(length));
  }
}

TEST(PlacementCodec, RefusesMoreBytes) {
  ExpectRefused(SerializePlacement(kPlacement) + '\0', "one more byte");
}

// The layout: byte order, the host's length (8 bytes) and bytes, threads (4), the count of cores.
TEST(PlacementCodec, RefusesLengthsThatCannotBe) {
  const std::string huge(8, '\x7f');
  const std::string good = SerializePlacement(kPlacement);
  ExpectRefused(std::string(good).replace(1, 8, huge), "host");
  ExpectRefused(std::string(good).replace(9 + kPlacement.host.size() + 4, 8, huge), "cores");
}

TEST(PlacementOfThisRank, IsWhatTheSystemSays) {
  cpu_set_t mask;
  ASSERT_EQ(sched_getaffinity(0, sizeof(mask), &mask), 0);
  const RankPlacement here = PlacementOfThisRank(3);
  EXPECT_EQ(here.host, HostName());
  EXPECT_EQ(here.threads, 3);
  EXPECT_EQ(here.cores.size(), static_cast<size_t>(CPU_COUNT(&mask)));
  EXPECT_TRUE(std::is_sorted(here.cores.begin(), here.cores.end()));
  for (const int core : here.cores) EXPECT_TRUE(CPU_ISSET(static_cast<size_t>(core), &mask));
  EXPECT_GE(here.host_cores, 1);
}

TEST(GatherPlacements, OfOneProcess) {
  const auto communicator = LocalCommunicator();
  const auto gathered = GatherPlacements(*communicator, 5);
  ASSERT_TRUE(gathered);
  ASSERT_EQ(gathered->size(), 1U);
  EXPECT_EQ(gathered->front(), PlacementOfThisRank(5));
}

}  // namespace
}  // namespace mergepipe
