#include "mergepipe/comm/communicator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "comm/mpi_main.h"
#include "support/error_of.h"

namespace mergepipe {
namespace {

enum class Kind { kWorld, kLocal };

// Each test holds for any number of ranks.
class CommunicatorTest : public testing::TestWithParam<Kind> {
 protected:
  Communicator& comm() { return GetParam() == Kind::kWorld ? World() : *local_; }
  int rank() { return comm().rank().value; }
  int size() { return comm().size(); }
  // What `who` prefixes its problems with.
  std::string Prefix(int who) {
    if (size() == 1) return "";
    return "[rank " + std::to_string(who) + ", host " + HostName() + "] ";
  }

 private:
  std::unique_ptr<Communicator> local_ = LocalCommunicator();
};

INSTANTIATE_TEST_SUITE_P(All, CommunicatorTest, testing::Values(Kind::kWorld, Kind::kLocal),
                         [](const auto& test) {
                           return test.param == Kind::kWorld ? "World" : "Local";
                         });

// `size` bytes that only `seed` makes; zero bytes among them.
std::string Message(size_t size, int seed) {
  std::string bytes(size, '\0');
  uint32_t state = static_cast<uint32_t>(seed) * 2654435761u + 1;
  for (char& c : bytes) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return bytes;
}

constexpr size_t kSizes[] = {0, 1, 1'000'000};

// Long texts are compared without being printed.
void ExpectSame(const std::string& got, const std::string& expected, const std::string& what) {
  EXPECT_EQ(got.size(), expected.size()) << what;
  EXPECT_TRUE(got == expected) << what;
}

Status Failure(int who) {
  return Fail(ErrorKind::kIo, "/file" + std::to_string(who), "is bad", "fix it");
}

// Asks until a failure is announced, 20 s at most.
bool WaitForAnnouncement(Communicator& comm) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < end) {
    if (comm.FailureAnnounced()) return true;
    std::this_thread::yield();
  }
  return false;
}

TEST_P(CommunicatorTest, KnowsItsPlace) {
  EXPECT_GE(rank(), 0);
  EXPECT_LT(rank(), size());
  EXPECT_EQ(comm().is_root(), rank() == 0);
  if (GetParam() == Kind::kLocal) {
    EXPECT_EQ(size(), 1);
  } else {
    EXPECT_EQ(size(), DetectLauncher().size);
    EXPECT_EQ(rank(), DetectLauncher().rank);
  }
}

TEST_P(CommunicatorTest, BroadcastReachesAll) {
  for (const size_t length : kSizes) {
    // What the others hold before, shorter or longer, does not matter.
    std::string bytes =
        rank() == 0 ? Message(length, 7) : Message(static_cast<size_t>(rank()) * 100, rank());
    comm().Broadcast(bytes);
    ExpectSame(bytes, Message(length, 7), std::to_string(length));
  }
}

TEST_P(CommunicatorTest, GatherKeepsRankOrder) {
  for (const size_t length : kSizes) {
    const auto all = comm().Gather(Message(length, rank()));
    EXPECT_EQ(all.size(), rank() == 0 ? static_cast<size_t>(size()) : 0u);
    for (size_t from = 0; from < all.size(); ++from) {
      ExpectSame(all[from], Message(length, static_cast<int>(from)), std::to_string(length));
    }
  }
}

TEST_P(CommunicatorTest, GatherOfDifferentSizes) {
  // Rank 0 the longest, then rank 0 nothing: both orders of large and small.
  for (const bool falling : {true, false}) {
    const auto length = [&](int who) {
      return kSizes[static_cast<size_t>(falling ? 2 - who % 3 : who % 3)];
    };
    const auto all = comm().Gather(Message(length(rank()), rank()));
    for (size_t from = 0; from < all.size(); ++from) {
      const int who = static_cast<int>(from);
      ExpectSame(all[from], Message(length(who), who), "rank " + std::to_string(who));
    }
  }
}

TEST_P(CommunicatorTest, ScatterGivesEachItsPart) {
  for (const size_t length : kSizes) {
    std::vector<std::string> parts;
    for (int to = 0; rank() == 0 && to < size(); ++to) {
      parts.push_back(Message(length + static_cast<size_t>(to % 3), to));
    }
    ExpectSame(comm().Scatter(std::move(parts)),
               Message(length + static_cast<size_t>(rank() % 3), rank()), std::to_string(length));
  }
}

TEST_P(CommunicatorTest, EveryPairExchangesMessages) {
  for (const size_t length : kSizes) {
    for (int to = 0; to < size(); ++to)
      comm().Send(Rank(to), 5, Message(length, rank() * 100 + to));
    for (int from = 0; from < size(); ++from) {
      ExpectSame(comm().Receive(Rank(from), 5), Message(length, from * 100 + rank()),
                 "from " + std::to_string(from));
    }
  }
}

TEST_P(CommunicatorTest, MessagesOfATagKeepTheirOrderAndTagsDoNotMix) {
  constexpr int kLastTag = 999;
  constexpr int kCount = 20;
  const Rank next((rank() + 1) % size());
  const Rank previous((rank() + size() - 1) % size());
  // Small and large in turn: they may travel by different protocols.
  const auto text = [](int tag, int i) { return Message(i % 2 == 0 ? 3 : 100'000, tag + i); };
  for (int i = 0; i < kCount; ++i) {
    comm().Send(next, 0, text(0, i));
    comm().Send(next, kLastTag, text(kLastTag, i));
  }
  for (const int tag : {kLastTag, 0}) {
    for (int i = 0; i < kCount; ++i) {
      ExpectSame(comm().Receive(previous, tag), text(tag, i), "tag " + std::to_string(tag));
    }
  }
}

TEST_P(CommunicatorTest, CollectivesDoNotTouchMessagesUnderWay) {
  const Rank next((rank() + 1) % size());
  const Rank previous((rank() + size() - 1) % size());
  comm().Send(next, 1, "before");
  std::string bytes = rank() == 0 ? "all" : "";
  comm().Broadcast(bytes);
  EXPECT_EQ(bytes, "all");
  for (const std::string& one : comm().Gather("gathered")) EXPECT_EQ(one, "gathered");
  EXPECT_EQ(comm().Scatter(std::vector<std::string>(static_cast<size_t>(size()), "part")), "part");
  EXPECT_EQ(comm().Receive(previous, 1), "before");
}

TEST_P(CommunicatorTest, AgreeOnSuccess) { EXPECT_TRUE(comm().Agree({})); }

TEST_P(CommunicatorTest, AgreeOnTheOneFailure) {
  for (int who = 0; who < size(); ++who) {
    const Status status = comm().Agree(rank() == who ? Failure(who) : Status());
    EXPECT_EQ(ErrorOf(status), Error(ErrorKind::kIo, Prefix(who) + "/file" + std::to_string(who),
                                     "is bad", "fix it"));
    EXPECT_TRUE(comm().Agree({})) << "a failure is forgotten after it was agreed on";
  }
}

TEST_P(CommunicatorTest, AgreeOnTheLowestOfSeveralFailures) {
  // Every set of failing ranks.
  for (int failing = 1; failing < 1 << size(); ++failing) {
    const Status status = comm().Agree((failing >> rank() & 1) != 0 ? Failure(rank()) : Status());
    int lowest = 0;
    while ((failing >> lowest & 1) == 0) ++lowest;
    EXPECT_EQ(ErrorOf(status).problems()[0].subject,
              Prefix(lowest) + "/file" + std::to_string(lowest));
  }
}

TEST_P(CommunicatorTest, AgreeKeepsTheKindAndAllProblems) {
  const int who = size() - 1;
  for (int kind = 0; kind <= static_cast<int>(ErrorKind::kInternal); ++kind) {
    const Error error(static_cast<ErrorKind>(kind),
                      {{"a", "x\n", "y"}, {"", "", ""}, {"b", "z", ""}});
    const Error expected(
        static_cast<ErrorKind>(kind),
        {{Prefix(who) + "a", "x\n", "y"}, {Prefix(who), "", ""}, {Prefix(who) + "b", "z", ""}});
    EXPECT_EQ(ErrorOf(comm().Agree(rank() == who ? Status(tl::unexpected(error)) : Status())),
              expected);
  }
}

TEST_P(CommunicatorTest, AnnouncementsAreSeenAndClearedRoundAfterRound) {
  EXPECT_FALSE(comm().FailureAnnounced());
  for (int round = 0; round < 200; ++round) {
    // Every set of announcing ranks in turn, none included.
    const int failing = round % (1 << size());
    const bool fail = (failing >> rank() & 1) != 0;
    if (fail) comm().AnnounceFailure();
    // Every other time the notices are left for Agree to collect.
    if (failing == 0) {
      EXPECT_FALSE(comm().FailureAnnounced()) << round;
    } else if (round / (1 << size()) % 2 == 0 || fail) {
      EXPECT_TRUE(WaitForAnnouncement(comm())) << round;
    }
    EXPECT_EQ(comm().Agree(fail ? Failure(rank()) : Status()).has_value(), failing == 0) << round;
    // Nobody announces between these two: a notice seen here is a stray one.
    EXPECT_FALSE(comm().FailureAnnounced()) << round;
    EXPECT_TRUE(comm().Agree({})) << round;
  }
}

TEST_P(CommunicatorTest, AnnouncementsDoNotDisturbMessages) {
  const Rank next((rank() + 1) % size());
  const Rank previous((rank() + size() - 1) % size());
  if (rank() == size() - 1) comm().AnnounceFailure();
  comm().Send(next, 999, "text");
  EXPECT_EQ(comm().Receive(previous, 999), "text");
  EXPECT_TRUE(WaitForAnnouncement(comm()));
  EXPECT_FALSE(comm().Agree(rank() == size() - 1 ? Failure(rank()) : Status()));
  EXPECT_FALSE(comm().FailureAnnounced());
  EXPECT_TRUE(comm().Agree({}));
}

}  // namespace
}  // namespace mergepipe
