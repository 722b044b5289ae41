#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "exec/mpi_fixture.h"
#include "exec/scan_fixture.h"

/// \file
/// The same scan on several ranks, and what becomes of the others when one fails.
namespace mergepipe {
namespace {

using namespace test;

TestModel Model(uint64_t seed) {
  return {MakeTensor("first", DType::kBF16, {50}, seed),
          MakeTensor("large", DType::kBF16, {8001}, seed + 1),
          MakeTensor("last", DType::kF32, {3000}, seed + 2)};
}

TestScan Prepare(const std::string& directory, uint64_t stride) {
  TestScan scan{.files = PosixFileSystem(),
                .directory = directory,
                .base = Model(1),
                .experts = {Model(11), Model(21)}};
  scan.stride = stride;
  if (communicator->is_root()) scan.WriteAll();
  SharedDirectory::Wait();
  return scan;
}

ScanSlice MySlice(const TestScan& scan) {
  return scan.Slices(communicator->size())[static_cast<size_t>(communicator->rank().value)];
}

template <typename T>
void Append(const std::vector<T>& more, std::vector<T>& all) {
  all.insert(all.end(), more.begin(), more.end());
}

// Several ranks' statistics of the same tensors, in rank order.
std::vector<ScanPartReport> Joined(const std::vector<std::string>& reports) {
  std::vector<ScanPartReport> all;
  for (const std::string& bytes : reports) {
    const auto report = ParseScanReport(bytes);
    EXPECT_TRUE(report.has_value());
    if (!report) return {};
    if (all.empty()) {
      all = report->parts;
      continue;
    }
    for (size_t p = 0; p < all.size(); ++p) {
      Append(report->parts[p].base, all[p].base);
      for (size_t k = 0; k < all[p].experts.size(); ++k)
        Append(report->parts[p].experts[k], all[p].experts[k]);
    }
  }
  return all;
}

TEST(ScanMpi, RanksTogetherFindWhatOneFinds) {
  for (const uint64_t stride : {0u, 1u, 3u}) {
    const SharedDirectory directory;
    const TestScan scan = Prepare(directory.path(), stride);
    const ScanSlice slice = MySlice(scan);
    const auto report = RunScan(scan.files, *communicator, slice, kAmple);
    EXPECT_TRUE(report.has_value()) << report.error().ToString();
    if (report) {
      EXPECT_EQ(report->expert_bytes_read, slice.expert_share);
      EXPECT_EQ(report->rank, communicator->rank().value);
    }
    const auto all = communicator->Gather(report ? SerializeScanReport(*report) : "");
    if (!communicator->is_root()) continue;
    const auto alone = RunScan(scan.files, *LocalCommunicator(), scan.Slices(1)[0], kAmple);
    EXPECT_TRUE(alone.has_value());
    if (alone) {
      EXPECT_EQ(Joined(all), alone->parts);
    }
  }
}

// `damage` hits the last rank; all ranks must end with its error.
void ExpectAllFail(const std::function<void(ScanSlice&, ExecLimits&)>& damage, ErrorKind kind,
                   const std::string& says) {
  const SharedDirectory directory;
  const TestScan scan = Prepare(directory.path(), 0);
  ScanSlice slice = MySlice(scan);
  ExecLimits limits = kAmple;
  if (IsLast()) damage(slice, limits);
  const auto report = RunScan(scan.files, *communicator, slice, limits);
  ExpectFailureOfTheLast(report, kind, says);
}

TEST(ScanMpi, AMissingFileOnOneRankEndsAll) {
  ExpectAllFail([](ScanSlice& slice, ExecLimits&) { slice.expert_files[1][0].path += ".gone"; },
                ErrorKind::kBadInput, "e1.safetensors.gone");
}

TEST(ScanMpi, AReadOverTheShareOnOneRankEndsAll) {
  for (const uint64_t share : {uint64_t{0}, uint64_t{2000}}) {
    ExpectAllFail([share](ScanSlice& slice, ExecLimits&) { slice.expert_share = share; },
                  ErrorKind::kInternal, "budget share");
  }
}

TEST(ScanMpi, TooLittleMemoryOnOneRankEndsAll) {
  ExpectAllFail([](ScanSlice&, ExecLimits& limits) { limits.memory_bytes = kMiB; },
                ErrorKind::kNoSpace, "--memory-mb");
}

// The last block belongs to the last rank.
TEST(ScanMpi, NanInOneRanksBlocksEndsAll) {
  const SharedDirectory directory;
  TestScan scan = Prepare(directory.path(), 0);
  scan.experts[0][2].Set(2999, std::numeric_limits<float>::quiet_NaN());
  if (communicator->is_root()) scan.WriteAll();
  SharedDirectory::Wait();
  const auto report = RunScan(scan.files, *communicator, MySlice(scan), kAmple);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().kind(), ErrorKind::kBadInput);
  EXPECT_TRUE(Says(report.error().ToString(), "expert 'e0': tensor 'last': has 1 NaN"));
}

}  // namespace
}  // namespace mergepipe
