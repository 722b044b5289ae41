// A merge, and what makes a full checkpoint of a sparse one, disturbed at every single call to the
// file system. Whatever happens, the output is absent, the old one or the new one, whole; and the
// same command then gives the bytes of an undisturbed one.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "mergepipe/run/materialize.h"
#include "mergepipe/run/records.h"
#include "run/ladder_world.h"
#include "support/error_of.h"

namespace mergepipe {
namespace {

using namespace test;

using Job = std::function<Result<MergeOutcome>(World&, FileSystem&)>;

// What a command meets at its target, and what it makes of it.
struct Case {
  Job job;
  std::function<void(World&)> prepare;
  Tree before;  // what the target is then
  Tree after;   // what an undisturbed command makes of it, without its record
};

Job MergeJob(bool overwrite, OutputForm form = OutputForm::kFull, PublishHook hook = {}) {
  return [=](World& world, FileSystem& files) {
    MergeOptions options = world.Options();
    options.target.overwrite = overwrite;
    options.target.form = form;
    options.publish_hook = hook;
    return RunMerge(files, world.communicator(), options);
  };
}

Tree MakeWith(World& world, const Job& job) {
  const auto outcome = job(world, world.disk());
  EXPECT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
  return world.Output();
}

Case NewTarget(OutputForm form = OutputForm::kFull) {
  World world;
  const Job job = MergeJob(false, form);
  return {job, [](World&) {}, {}, WithoutManifest(MakeWith(world, job))};
}

Case Overwritten() {
  const Job other = [](World& world, FileSystem& files) {
    return RunMerge(files, world.communicator(), world.Options(true));
  };
  World old_world;
  const Tree old = MakeWith(old_world, other);
  World world;
  const Tree made = MakeWith(world, MergeJob(true));
  EXPECT_NE(WithoutManifest(old), WithoutManifest(made));
  return {MergeJob(true), [old](World& w) { WriteTree(w.disk(), w.OutputDirectory(), old); }, old,
          WithoutManifest(made)};
}

Case Materialized() {
  World world;
  const Tree sparse = MakeWith(world, MergeJob(false, OutputForm::kSparse));
  const Job job = [](World& w, FileSystem& files) {
    MaterializeOptions options;
    options.sparse = "/work/sparse";
    options.catalog = w.catalog();
    options.base = "/in/base";
    options.target = w.Options().target;
    options.limits = w.Options().limits;
    return RunMaterialize(files, w.communicator(), options);
  };
  return {job,
          [sparse](World& w) { WriteTree(w.disk(), "/work/sparse", sparse); },
          {},
          NewTarget().after};
}

// The record of a run is there, and the output is what it says.
void ExpectRecorded(World& world, const Tree& expected) {
  const Tree tree = world.Output();
  ASSERT_EQ(WithoutManifest(tree), expected);
  const auto verified =
      VerifyOutput(world.disk(), world.communicator(), {world.catalog(), world.RunsDirectory()},
                   world.OutputDirectory(), 1);
  ASSERT_TRUE(verified.has_value()) << ErrorOf(verified).ToString();
  EXPECT_EQ(verified->notes, std::vector<std::string>());
  for (const char* name : {"plan.json", "manifest.json", "meta.json"}) {
    const std::string path = JoinPath(JoinPath(world.RunsDirectory(), verified->run_id), name);
    EXPECT_TRUE(world.disk().Exists(path).value()) << path;
  }
}

// Hidden names beside the output are those of a command that did not come to its end.
std::vector<std::string> Hidden(World& world) {
  std::vector<std::string> names;
  const auto entries = world.disk().List("/work").value();
  for (const DirectoryEntry& entry : entries) {
    if (entry.name.starts_with(".")) names.push_back(entry.name);
  }
  return names;
}

bool ExpectOldOrNew(World& world, const Case& one) {
  const Tree tree = world.Output();
  const bool there = world.disk().Exists(world.OutputDirectory()).value();
  if (there == !one.before.empty() && tree == one.before) return false;
  EXPECT_EQ(WithoutManifest(tree), one.after);
  EXPECT_TRUE(tree.contains("manifest.json"));
  return true;
}

// The command again, with nothing in its way. One that was disturbed after the output came to its
// place may be told that it exists.
void ExpectGoesOn(World& world, const Case& one, bool published) {
  const auto again = one.job(world, world.disk());
  if (!again && published && one.before.empty()) {
    EXPECT_EQ(ErrorOf(again).kind(), ErrorKind::kUsage);
    EXPECT_EQ(WithoutManifest(world.Output()), one.after);
    return;
  }
  ASSERT_TRUE(again.has_value()) << ErrorOf(again).ToString();
  EXPECT_EQ(Hidden(world), std::vector<std::string>());
  ExpectRecorded(world, one.after);
}

// The lock of a run folder is for `recover` only, and done without where a filesystem has none.
bool MayBeOverlooked(const std::string& call) {
  return call.starts_with("Lock ") && call.find("/runs/") != std::string::npos;
}

// Whether the call number `n` was reached.
bool Climb(const Case& one, Disturbance how, uint64_t n) {
  World world;
  one.prepare(world);
  world.Disturb(how, n);
  const auto outcome = one.job(world, world.files());
  const bool hit = world.files().hit();
  SCOPED_TRACE("call " + std::to_string(n) + ": " + (hit ? world.files().log()[n] : "none"));
  if (hit && how == Disturbance::kError) {
    if (outcome) {
      EXPECT_TRUE(!outcome->warnings.empty() || MayBeOverlooked(world.files().log()[n]))
          << "a failed call was overlooked";
    } else {
      world.ExpectTold(outcome.error(), n);
    }
  }
  world.Settle(how, n);
  const bool published = ExpectOldOrNew(world, one);
  if (outcome) {
    EXPECT_TRUE(published);
  }
  world.ExpectCatalogWhole();
  if (hit) {
    ExpectGoesOn(world, one, published);
  } else {
    EXPECT_TRUE(outcome.has_value()) << ErrorOf(outcome).ToString();
    ExpectRecorded(world, one.after);
  }
  return hit;
}

bool ChangesTheDisk(const std::string& call) {
  constexpr std::array kLooks = {"OpenForReading ", "ReadAt ", "Stat ",
                                 "Exists ",         "List ",   "FreeSpace "};
  return std::ranges::none_of(kLooks, [&](const char* look) { return call.starts_with(look); });
}

// The calls of an undisturbed command at which to disturb it: all that change the disk, and every
// `stride`-th of the others, if any. A crash between two changes leaves what one at the second
// does.
std::vector<uint64_t> Rungs(const Case& one, uint64_t stride) {
  World world;
  one.prepare(world);
  EXPECT_TRUE(one.job(world, world.files()).has_value());
  const std::vector<std::string> log = world.files().log();
  std::vector<uint64_t> rungs;
  for (uint64_t n = 0; n < log.size(); ++n) {
    if ((stride > 0 && n % stride == 0) || ChangesTheDisk(log[n])) rungs.push_back(n);
  }
  EXPECT_GT(rungs.size(), 20u);
  rungs.push_back(log.size() + 100);
  return rungs;
}

// How many calls there are may differ a little from run to run, as threads share the work: a rung
// that was not reached is an undisturbed command, and the last one always is.
void ClimbAll(const Case& one, Disturbance how, uint64_t stride) {
  const std::vector<uint64_t> rungs = Rungs(one, how == Disturbance::kError ? stride : 0);
  size_t hits = 0;
  for (const uint64_t n : rungs) {
    if (Climb(one, how, n)) ++hits;
  }
  EXPECT_GT(hits, rungs.size() * 3 / 4);
  EXPECT_LT(hits, rungs.size());
}

class MergeLadder : public testing::TestWithParam<Disturbance> {};

TEST_P(MergeLadder, ANewTarget) { ClimbAll(NewTarget(), GetParam(), 5); }
TEST_P(MergeLadder, AnOverwrittenTarget) { ClimbAll(Overwritten(), GetParam(), 17); }
TEST_P(MergeLadder, ASparseOutput) { ClimbAll(NewTarget(OutputForm::kSparse), GetParam(), 17); }
TEST_P(MergeLadder, AMaterializedOutput) { ClimbAll(Materialized(), GetParam(), 17); }

std::string NameOf(const testing::TestParamInfo<Disturbance>& info) {
  switch (info.param) {
    case Disturbance::kError: return "Error";
    case Disturbance::kKill: return "Kill";
    case Disturbance::kPowerLoss: return "PowerLoss";
    case Disturbance::kPowerLossInPart: return "PowerLossInPart";
  }
  return "";
}

INSTANTIATE_TEST_SUITE_P(Every, MergeLadder,
                         testing::Values(Disturbance::kError, Disturbance::kKill,
                                         Disturbance::kPowerLoss, Disturbance::kPowerLossInPart),
                         NameOf);

// A merge that comes to `point` stops there, as if killed; nothing reaches the disk any more.
Result<MergeOutcome> StopAt(PublishPoint point, bool overwrite, World& world) {
  const Error stopped(ErrorKind::kInterrupted, "test", "stopped here");
  return MergeJob(overwrite, OutputForm::kFull, [&](PublishPoint reached) -> Status {
    if (reached != point) return {};
    world.files().Stop(stopped);
    return tl::unexpected(stopped);
  })(world, world.files());
}

class PublishPoints : public testing::TestWithParam<Disturbance> {
 protected:
  static void StopAtEach(const Case& one, bool overwrite, const std::vector<PublishPoint>& points) {
    for (const PublishPoint point : points) {
      SCOPED_TRACE("point " + std::to_string(static_cast<int>(point)));
      World world;
      one.prepare(world);
      EXPECT_EQ(ErrorOf(StopAt(point, overwrite, world)).kind(), ErrorKind::kInterrupted);
      world.Settle(GetParam(), static_cast<uint64_t>(point));
      const bool published = ExpectOldOrNew(world, one);
      if (point == PublishPoint::kBeforeOldRemoval || point == PublishPoint::kDone) {
        EXPECT_TRUE(published);
      }
      world.ExpectCatalogWhole();
      ExpectGoesOn(world, one, published);
    }
  }
};

TEST_P(PublishPoints, OfANewTarget) {
  StopAtEach(NewTarget(), false,
             {PublishPoint::kBeforeDirectorySync, PublishPoint::kBeforeRename,
              PublishPoint::kAfterRename, PublishPoint::kDone});
}

TEST_P(PublishPoints, OfAnOverwrittenTarget) {
  StopAtEach(Overwritten(), true,
             {PublishPoint::kBeforeDirectorySync, PublishPoint::kBeforeRename,
              PublishPoint::kAfterExchange, PublishPoint::kBeforeOldRemoval, PublishPoint::kDone});
}

INSTANTIATE_TEST_SUITE_P(Every, PublishPoints,
                         testing::Values(Disturbance::kKill, Disturbance::kPowerLoss,
                                         Disturbance::kPowerLossInPart),
                         NameOf);

}  // namespace
}  // namespace mergepipe
