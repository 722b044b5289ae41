#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "exec/counting_file_system.h"
#include "exec/scan_fixture.h"
#include "mergepipe/kernels/statistics.h"
#include "support/fault_file_system.h"
#include "support/memory_file_system.h"

namespace mergepipe {
namespace {

using namespace test;

// --- Statistics by their definition, element by element. ---

const TestTensor* Named(const TestModel& model, const std::string& name) {
  const auto found = std::ranges::find(model, name, &TestTensor::name);
  return found == model.end() ? nullptr : &*found;
}

struct Stretch {
  uint64_t begin;
  uint64_t end;
};

StoredElements Stored(const TestTensor& tensor, Stretch stretch) {
  const uint64_t size = DTypeSize(tensor.dtype);
  return {tensor.dtype, std::as_bytes(std::span(tensor.bytes))
                            .subspan(stretch.begin * size, (stretch.end - stretch.begin) * size)};
}

template <typename At>
double Squares(Stretch stretch, At at) {
  std::array<double, 32> lanes{};
  for (uint64_t i = stretch.begin; i < stretch.end; ++i) {
    const auto value = static_cast<double>(at(i));
    if (std::isfinite(value)) lanes[(i - stretch.begin) % 32] += value * value;
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

BlockStatistics Expected(const TestTensor& expert, const TestTensor& base, Stretch stretch) {
  const auto delta = [&](uint64_t i) { return expert.At(i) - base.At(i); };
  BlockStatistics block;
  block.sum_squares = Squares(stretch, delta);
  for (uint64_t i = stretch.begin; i < stretch.end; ++i) {
    const float magnitude = std::fabs(delta(i));
    if (magnitude != 0) ++block.nonzeros;
    block.max_abs = std::isfinite(magnitude) ? std::max(block.max_abs, magnitude)
                                             : std::numeric_limits<float>::infinity();
  }
  const StoredElements stored = Stored(expert, stretch);
  block.sketch = QuantizeSketch(SumDeltas(stored, Stored(base, stretch)).sketch);
  block.hash = HashBytes(stored.bytes);
  return block;
}

// The part of a block that a scan reads.
Stretch Read(const TestScan& scan, const TestTensor& base, uint64_t block) {
  const uint64_t begin = block * scan.block_size;
  const uint64_t end = std::min(begin + scan.block_size, base.elements());
  if (scan.stride == 0) return {begin, end};
  const BlockSample sample = ProbeSample(end - begin, base.dtype);
  return {begin + sample.first, begin + sample.first + sample.count};
}

ScanPartReport Expected(const TestScan& scan, const ScanPart& part) {
  const TestTensor& base = scan.base[part.tensor];
  ScanPartReport report;
  report.tensor = part.tensor;
  report.experts.resize(scan.experts.size());
  for (uint64_t b = 0; b < part.blocks.size(); ++b) {
    if (!part.blocks.Contains(BlockIndex(b))) continue;
    const Stretch stretch = Read(scan, base, b);
    if (scan.wants_base && scan.stride == 0) {
      const auto at = [&](uint64_t i) { return base.At(i); };
      report.base.push_back({Squares(stretch, at), HashBytes(Stored(base, stretch).bytes)});
    }
    for (size_t k = 0; k < scan.experts.size(); ++k) {
      const TestTensor* expert = Named(scan.experts[k], base.name);
      if (expert != nullptr) report.experts[k].push_back(Expected(*expert, base, stretch));
    }
  }
  return report;
}

// --- The cases. ---

class Scan : public ::testing::Test {
 protected:
  Scan() {
    scan_.base = {
        MakeTensor("a", DType::kF32, {37, 10}, 1), MakeTensor("b", DType::kBF16, {64, 20}, 2),
        MakeTensor("ids", DType::kI64, {100}, 3),  MakeTensor("c", DType::kF16, {129}, 4),
        MakeTensor("none", DType::kF32, {0}, 5),   MakeTensor("d", DType::kBF16, {}, 6)};
    // Other types, an order of their own, tensors that are missing, some that equal the base's.
    scan_.experts = {
        {MakeTensor("a", DType::kF32, {37, 10}, 11), MakeTensor("b", DType::kBF16, {64, 20}, 12),
         MakeTensor("c", DType::kF16, {129}, 13), MakeTensor("d", DType::kBF16, {}, 14)},
        {MakeTensor("c", DType::kF32, {129}, 21), MakeTensor("a", DType::kBF16, {37, 10}, 22)},
        {scan_.base[1], MakeTensor("other", DType::kF32, {50}, 1), scan_.base[0]}};
    scan_.WriteAll();
  }

  Result<ScanReport> Run(FileSystem& files, const ExecLimits& limits = kAmple) const {
    return RunScan(files, *LocalCommunicator(), scan_.Slices(1)[0], limits);
  }

  void ExpectRight(const ScanReport& report) const {
    const ScanSlice slice = scan_.Slices(1)[0];
    ASSERT_EQ(report.parts.size(), slice.parts.size());
    for (size_t p = 0; p < slice.parts.size(); ++p) {
      const ScanPartReport expected = Expected(scan_, slice.parts[p]);
      EXPECT_EQ(report.parts[p].tensor, expected.tensor);
      EXPECT_EQ(report.parts[p].base, expected.base) << slice.parts[p].name;
      EXPECT_EQ(report.parts[p].experts, expected.experts) << slice.parts[p].name;
    }
  }

  // Runs, compares with the definition, and checks that what was read was planned and counted.
  void ExpectRightAndCounted() const {
    CountingFileSystem counting(disk_);
    const auto report = Run(counting);
    ASSERT_TRUE(report.has_value()) << report.error().ToString();
    ExpectRight(*report);
    uint64_t read = 0;
    for (size_t k = 0; k < scan_.experts.size(); ++k)
      read += counting.BytesRead(scan_.Path("e" + std::to_string(k)));
    EXPECT_EQ(read, scan_.Slices(1)[0].expert_share);
    EXPECT_EQ(read, report->expert_bytes_read);
    EXPECT_EQ(counting.BytesRead(scan_.Path("base")), report->base_bytes_read);
  }

  uint64_t ReadsOf(const std::string& id) const {
    FaultFileSystem logging(disk_);
    const auto report = Run(logging);
    EXPECT_TRUE(report.has_value()) << report.error().ToString();
    if (report) ExpectRight(*report);
    const auto log = logging.log();
    return static_cast<uint64_t>(std::ranges::count(log, "ReadAt " + scan_.Path(id)));
  }

  mutable MemoryFileSystem disk_;
  TestScan scan_{.files = disk_, .directory = "", .base = {}, .experts = {}};
};

TEST_F(Scan, TakesStatisticsOfWholeBlocks) {
  for (const uint64_t block_size : {1u, 31u, 32u, 64u, 370u, 100'000u}) {
    for (const bool wants_base : {true, false}) {
      scan_.block_size = block_size;
      scan_.wants_base = wants_base;
      ExpectRightAndCounted();
    }
  }
  // Base 370 x 4, 1280 x 2, 129 x 2, 1 x 2; the first expert the same, the others what they have.
  const auto report = Run(disk_);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->base_bytes_read, 1480u + 2560 + 258 + 2);
  EXPECT_EQ(report->expert_bytes_read, 4300u + (129 * 4 + 370 * 2) + (2560 + 1480));
  EXPECT_EQ(report->host, HostName());
}

TEST_F(Scan, KnowsBlocksThatEqualTheBase) {
  const auto report = Run(disk_);
  ASSERT_TRUE(report.has_value());
  for (const size_t p : {0, 1}) {
    const ScanPartReport& part = report->parts[p];
    ASSERT_FALSE(part.experts[2].empty());
    for (size_t i = 0; i < part.experts[2].size(); ++i) {
      EXPECT_EQ(part.experts[2][i].nonzeros, 0u);
      EXPECT_EQ(part.experts[2][i].sketch, (std::array<int8_t, 32>{}));
      EXPECT_EQ(part.experts[2][i].hash, part.base[i].hash);
    }
  }
  EXPECT_TRUE(report->parts[2].experts[2].empty());
}

TEST_F(Scan, ProbesTheMiddleOfSomeBlocks) {
  scan_.base = {MakeTensor("a", DType::kF32, {50'000}, 1), MakeTensor("b", DType::kBF16, {100}, 2),
                MakeTensor("c", DType::kBF16, {70'001}, 3)};
  scan_.experts = {
      {MakeTensor("a", DType::kBF16, {50'000}, 11), MakeTensor("c", DType::kF32, {70'001}, 13)},
      {MakeTensor("b", DType::kF16, {100}, 12)}};
  scan_.WriteAll();
  for (const uint64_t block_size : {1000u, 8192u, 10'000u, 640'000u}) {
    for (const uint64_t stride : {1u, 2u, 5u}) {
      scan_.block_size = block_size;
      scan_.stride = stride;
      ExpectRightAndCounted();
    }
  }
}

TEST_F(Scan, NeighboursAreReadTogether) {
  EXPECT_EQ(ReadsOf("base"), 4u);  // a tensor each
  EXPECT_EQ(ReadsOf("e1"), 2u);
  scan_.base = {MakeTensor("a", DType::kBF16, {40'000}, 1)};
  scan_.experts = {{MakeTensor("a", DType::kF32, {40'000}, 2)}};
  scan_.WriteAll();
  scan_.stride = 1;
  scan_.block_size = 8192;  // the samples are the blocks
  EXPECT_EQ(ReadsOf("base"), 1u);
  EXPECT_EQ(ReadsOf("e0"), 1u);
  scan_.block_size = 8193;
  EXPECT_EQ(ReadsOf("base"), 5u);
  EXPECT_EQ(ReadsOf("e0"), 5u);
  scan_.block_size = 8192;
  scan_.stride = 2;  // blocks 0, 2, 4
  EXPECT_EQ(ReadsOf("e0"), 3u);
}

TEST_F(Scan, ReadsAreNotOver16MiB) {
  const std::vector<uint64_t> shape = {17 * kMiB / 4};
  scan_.base = {{"a", DType::kF32, shape, std::string(17 * kMiB, '\1')}};
  scan_.experts = {{{"a", DType::kF32, shape, std::string(17 * kMiB, '\2')}}};
  scan_.WriteAll();
  scan_.block_size = 640'000;  // 2.6 MB
  // Units of three blocks.
  EXPECT_EQ(ReadsOf("base"), 3u);
  scan_.block_size = uint64_t{1} << 24;
  EXPECT_EQ(ReadsOf("base"), 2u);
  EXPECT_EQ(ReadsOf("e0"), 2u);
}

TEST_F(Scan, TheReportDoesNotDependOnThreadsAndMemory) {
  scan_.block_size = 100;
  const auto report = Run(disk_);
  ASSERT_TRUE(report.has_value());
  const std::string expected = SerializeScanReport(*report);
  // The least memory with which the scan runs.
  uint64_t too_little = 0;
  uint64_t enough = kAmple.memory_bytes;
  while (enough - too_little > 1) {
    const uint64_t middle = (enough + too_little) / 2;
    const auto tried = Run(disk_, {1, middle});
    (tried ? enough : too_little) = middle;
    if (tried) continue;
    ASSERT_EQ(tried.error().kind(), ErrorKind::kNoSpace);
    ASSERT_TRUE(Says(tried.error().ToString(), "--memory-mb"));
  }
  // Blocks of base and expert take 800 bytes at most; with so little memory units are one block.
  for (const uint64_t more : {0u, 1u, 799u, 800u, 1600u, 5000u, 1'000'000u}) {
    for (const int threads : {1, 2, 3, 16}) {
      const auto again = Run(disk_, {threads, enough + more});
      ASSERT_TRUE(again.has_value()) << again.error().ToString();
      ASSERT_EQ(SerializeScanReport(*again), expected) << threads << ' ' << more;
    }
  }
  EXPECT_GT(enough, 128 * kMiB);
  EXPECT_LT(enough, 129 * kMiB);
}

TEST_F(Scan, OfNothingReadsNothing) {
  scan_.wants_base = false;
  ScanSlice slice = scan_.Slices(1)[0];
  for (ScanPart& part : slice.parts) part.blocks = BlockSet(part.blocks.size());
  slice.parts[0].blocks.Add(BlockIndex(0));
  for (SourceTensor& expert : slice.parts[0].experts) expert.present = false;
  FaultFileSystem logging(disk_);
  const auto report = RunScan(logging, *LocalCommunicator(), slice, kAmple);
  ASSERT_TRUE(report.has_value()) << report.error().ToString();
  EXPECT_EQ(logging.operations(), 0u);
  EXPECT_EQ(report->parts.size(), slice.parts.size());
  EXPECT_TRUE(RunScan(logging, *LocalCommunicator(), ScanSlice(), kAmple).has_value());
}

}  // namespace
}  // namespace mergepipe
