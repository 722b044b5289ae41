#include "mergepipe/io/publish.h"

#include <gtest/gtest.h>

#include "support/error_of.h"
#include "support/fault_file_system.h"
#include "support/memory_file_system.h"

namespace mergepipe {
namespace {

const Error kStopped(ErrorKind::kInterrupted, "test", "stopped here");
constexpr uint64_t kSeeds = 64;  // 4 unsynced directories at most: every mixture comes up

using Points = std::vector<PublishPoint>;
const Points kNewTarget = {PublishPoint::kBeforeDirectorySync, PublishPoint::kBeforeRename,
                           PublishPoint::kAfterRename, PublishPoint::kDone};
const Points kOverwritten = {PublishPoint::kBeforeDirectorySync, PublishPoint::kBeforeRename,
                             PublishPoint::kAfterExchange, PublishPoint::kBeforeOldRemoval,
                             PublishPoint::kDone};

// A disk with a finished staging directory for /work/out, its files synced, its names not. With
// `with_old` there is a durable target already.
class Disk {
 public:
  explicit Disk(bool with_old) : overwrite_(with_old) {
    EXPECT_TRUE(memory_.CreateDirectories("/work"));
    if (with_old) {
      Fill("/work/out", "old");
      EXPECT_TRUE(memory_.SyncDirectory("/work/out/sub"));
      EXPECT_TRUE(memory_.SyncDirectory("/work/out"));
    }
    EXPECT_TRUE(memory_.SyncDirectory("/work"));
    EXPECT_TRUE(memory_.SyncDirectory("/"));
    Fill(paths_.staging, "new");
  }

  Status Publish(const PublishHook& hook = {}) {
    report_ = {};
    return PublishDirectory(files_, paths_, {"sub"}, overwrite_, hook, &report_);
  }
  const PublishReport& report() const { return report_; }
  Status PublishUntil(PublishPoint stop) {
    return Publish([&](PublishPoint point) {
      return point == stop ? Status(tl::unexpected(kStopped)) : Status();
    });
  }
  // "absent", "old" or "new" if the target is one of them whole; else what is wrong.
  std::string Target() { return Content("/work/out"); }
  std::string Staging() { return Content(paths_.staging); }

  MemoryFileSystem& memory() { return memory_; }
  FaultFileSystem& files() { return files_; }
  const StagingPaths& paths() const { return paths_; }

 private:
  void Fill(const std::string& directory, const std::string& text) {
    EXPECT_TRUE(memory_.CreateDirectories(directory + "/sub"));
    EXPECT_TRUE(WriteNewFile(memory_, directory + "/a", text));
    EXPECT_TRUE(WriteNewFile(memory_, directory + "/sub/b", text));
  }
  std::string Content(const std::string& directory) {
    if (!memory_.Exists(directory).value()) return "absent";
    const std::string a = ReadSmallFile(memory_, directory + "/a", 100).value_or("missing");
    const std::string b = ReadSmallFile(memory_, directory + "/sub/b", 100).value_or("missing");
    return a == b && (a == "old" || a == "new") ? a : "broken: a " + a + ", b " + b;
  }

  MemoryFileSystem memory_;
  FaultFileSystem files_{memory_};
  StagingPaths paths_ = StagingPaths::For("/work/out", "plan");
  bool overwrite_;
  PublishReport report_;
};

// Runs `publish` on a fresh disk, crashes it in every way, and passes the target's state to
// `check`.
template <typename Publish, typename Check>
void ForEveryCrash(bool with_old, Publish&& publish, Check&& check) {
  for (uint64_t seed = 0; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Disk disk(with_old);
    publish(disk);
    if (seed == kSeeds) {
      disk.memory().Crash();
    } else {
      disk.memory().Crash(seed);
    }
    check(disk.Target());
  }
}

// What may be there after a crash at `point`: `before` until the rename, either until its name is
// synced, "new" from then on.
void ExpectWhole(PublishPoint point, const std::string& target, const std::string& before) {
  switch (point) {
    case PublishPoint::kBeforeDirectorySync:
    case PublishPoint::kBeforeRename: EXPECT_EQ(target, before); break;
    case PublishPoint::kAfterRename:
    case PublishPoint::kAfterExchange:
      EXPECT_TRUE(target == before || target == "new") << target;
      break;
    case PublishPoint::kBeforeOldRemoval:
    case PublishPoint::kDone: EXPECT_EQ(target, "new"); break;
  }
}

void CrashAtEachPoint(bool with_old, const Points& points) {
  for (const PublishPoint point : points) {
    SCOPED_TRACE("point " + std::to_string(static_cast<int>(point)));
    ForEveryCrash(
        with_old, [&](Disk& disk) { EXPECT_EQ(ErrorOf(disk.PublishUntil(point)), kStopped); },
        [&](const std::string& target) {
          ExpectWhole(point, target, with_old ? "old" : "absent");
        });
  }
}

TEST(Publish, ACrashAtAnyPointLeavesANewTargetAbsentOrWhole) {
  CrashAtEachPoint(false, kNewTarget);
}

TEST(Publish, ACrashAtAnyPointOfAnOverwriteLeavesTheOldOrTheNew) {
  CrashAtEachPoint(true, kOverwritten);
}

TEST(Publish, AKilledProcessLeavesTheSameWithoutAPowerCut) {
  for (const bool with_old : {false, true}) {
    for (const PublishPoint point : with_old ? kOverwritten : kNewTarget) {
      Disk disk(with_old);
      EXPECT_FALSE(disk.PublishUntil(point));
      const bool renamed =
          point != PublishPoint::kBeforeDirectorySync && point != PublishPoint::kBeforeRename;
      const std::string old = with_old ? "old" : "absent";
      EXPECT_EQ(disk.Target(), renamed ? "new" : old);
      EXPECT_EQ(disk.Staging(), !renamed ? "new" : point == PublishPoint::kDone ? "absent" : old);
    }
  }
}

TEST(Publish, ReachesItsPointsInOrder) {
  for (const bool with_old : {false, true}) {
    Disk disk(with_old);
    Points reached;
    EXPECT_TRUE(disk.Publish([&](PublishPoint point) {
      reached.push_back(point);
      return Status();
    }));
    EXPECT_EQ(reached, with_old ? kOverwritten : kNewTarget);
    EXPECT_EQ(disk.Target(), "new");
    EXPECT_EQ(disk.Staging(), "absent");
  }
}

TEST(Publish, SyncsThenRenamesThenSyncsThenRemoves) {
  Disk fresh(false);
  ASSERT_TRUE(fresh.Publish());
  const std::string staging = fresh.paths().staging;
  EXPECT_EQ(fresh.files().log(),
            (std::vector<std::string>{"SyncDirectory " + staging + "/sub",
                                      "SyncDirectory " + staging, "Exists /work/out",
                                      "Rename " + staging + " /work/out", "SyncDirectory /work"}));
  Disk old(true);
  ASSERT_TRUE(old.Publish());
  EXPECT_EQ(old.files().log(),
            (std::vector<std::string>{
                "SyncDirectory " + staging + "/sub", "SyncDirectory " + staging, "Exists /work/out",
                "Exchange " + staging + " /work/out", "SyncDirectory /work", "Remove " + staging}));
}

TEST(Publish, AFailureOfAnyOperationIsReportedAndLosesNothing) {
  const Error error(ErrorKind::kIo, "disk", "broke");
  for (const bool with_old : {false, true}) {
    Disk counted(with_old);
    ASSERT_TRUE(counted.Publish());
    for (uint64_t n = 0; n < counted.files().operations(); ++n) {
      SCOPED_TRACE(counted.files().log()[n]);
      ForEveryCrash(
          with_old,
          [&](Disk& disk) {
            disk.files().FailAt(n, error, FaultFileSystem::Repeat::kForever);
            const bool removal = counted.files().log()[n].starts_with("Remove");
            const Status status = disk.Publish();
            if (removal) {
              EXPECT_TRUE(status);
              EXPECT_EQ(disk.report().leftover, disk.paths().staging);
            } else {
              EXPECT_EQ(ErrorOf(status), error);
            }
          },
          [&](const std::string& target) {
            EXPECT_TRUE(target == "new" || target == (with_old ? "old" : "absent")) << target;
          });
    }
  }
}

TEST(SettleExchange, GivesTheOldDirectoryItsNameBackOrRemovesIt) {
  Disk disk(true);
  // Killed after the first rename of an exchange by hand: the target is away.
  ASSERT_TRUE(disk.memory().Rename("/work/out", disk.paths().previous, RenameMode::kReplace));
  ASSERT_TRUE(SettleExchange(disk.memory(), disk.paths()));
  EXPECT_EQ(disk.Target(), "old");
  EXPECT_EQ(disk.Staging(), "new");
  // Killed after the second: the new one is in place.
  ASSERT_TRUE(disk.memory().Rename("/work/out", disk.paths().previous, RenameMode::kReplace));
  ASSERT_TRUE(disk.memory().Rename(disk.paths().staging, "/work/out", RenameMode::kReplace));
  ASSERT_TRUE(SettleExchange(disk.memory(), disk.paths()));
  EXPECT_EQ(disk.Target(), "new");
  EXPECT_FALSE(disk.memory().Exists(disk.paths().previous).value());
  ASSERT_TRUE(SettleExchange(disk.memory(), disk.paths()));  // nothing to settle
}

TEST(Publish, WithoutOverwriteATargetIsLeftAlone) {
  Disk disk(true);
  const Status status = PublishDirectory(disk.files(), disk.paths(), {"sub"}, /*overwrite=*/false);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind(), ErrorKind::kUsage);
  EXPECT_EQ(status.error().problems()[0].subject, "/work/out");
  EXPECT_EQ(disk.Target(), "old");
  EXPECT_EQ(disk.Staging(), "new");
}

TEST(Publish, OverwriteOfNothingIsANewTarget) {
  Disk disk(false);
  Points reached;
  EXPECT_TRUE(PublishDirectory(disk.files(), disk.paths(), {"sub"}, /*overwrite=*/true,
                               [&](PublishPoint point) {
                                 reached.push_back(point);
                                 return Status();
                               }));
  EXPECT_EQ(reached, kNewTarget);
  EXPECT_EQ(disk.Target(), "new");
}

TEST(Publish, AMissingStagingDirectoryIsAnErrorAndKeepsTheTarget) {
  Disk disk(true);
  ASSERT_TRUE(disk.memory().Remove(disk.paths().staging));
  EXPECT_FALSE(disk.Publish());
  EXPECT_EQ(disk.Target(), "old");
}

TEST(StagingPaths, AreHiddenBesideTheTarget) {
  const StagingPaths paths = StagingPaths::For("/work/x/../out/", "1f2e");
  EXPECT_EQ(paths.target, "/work/out");
  EXPECT_EQ(paths.parent, "/work");
  EXPECT_EQ(paths.staging, "/work/.out.mergepipe-1f2e");
  EXPECT_EQ(paths.lock, "/work/.out.mergepipe.lock");
  EXPECT_EQ(StagingPaths::For("out", "1").target, AbsolutePath("out"));
  EXPECT_EQ(StagingPaths::For("/out", "1").staging, "/.out.mergepipe-1");
}

}  // namespace
}  // namespace mergepipe
