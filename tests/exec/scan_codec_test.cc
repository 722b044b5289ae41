#include <gtest/gtest.h>

#include <tuple>

#include "exec/codec_fixture.h"
#include "exec/draw.h"
#include "mergepipe/exec/scan.h"

namespace mergepipe {
namespace {

using namespace test;

ScanSlice RandomSlice(uint64_t seed) {
  Draw draw(seed);
  ScanSlice slice;
  slice.block_size = draw.Number();
  slice.probe = draw.Coin();
  slice.allow_nonfinite = draw.Coin();
  slice.base_files = draw.Some([&] { return draw.File(); });
  slice.expert_files = draw.Some([&] { return draw.Some([&] { return draw.File(); }); });
  slice.expert_ids = draw.Some([&] { return draw.Text(); });
  slice.parts = draw.Some([&] {
    ScanPart part;
    part.tensor = draw.Small();
    part.name = draw.Text();
    part.elements = draw.Number();
    part.base = draw.Source();
    part.experts = draw.Some([&] { return draw.Source(); });
    part.blocks = draw.Blocks();
    part.wants_base = draw.Coin();
    return part;
  });
  slice.expert_share = draw.Number();
  return slice;
}

ScanReport RandomReport(uint64_t seed) {
  Draw draw(seed);
  ScanReport report;
  report.rank = static_cast<int>(draw.Small());
  report.host = draw.Text();
  report.expert_bytes_read = draw.Number();
  report.base_bytes_read = draw.Number();
  report.parts = draw.Some([&] {
    ScanPartReport part;
    part.tensor = draw.Small();
    part.base = draw.Some([&] { return BaseBlockStatistics{draw.Real(), draw.Hash()}; });
    part.experts = draw.Some([&] { return draw.Some([&] { return draw.Block(); }); });
    return part;
  });
  return report;
}

auto Fields(const SourceFile& file) {
  return std::tie(file.path, file.size, file.mtime_ns, file.data_begin);
}
auto Fields(const SourceTensor& tensor) {
  return std::tie(tensor.present, tensor.dtype, tensor.file, tensor.offset);
}

template <typename T>
void ExpectSame(const std::vector<T>& a, const std::vector<T>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_TRUE(Fields(a[i]) == Fields(b[i])) << i;
}

void ExpectSame(const ScanPart& a, const ScanPart& b) {
  EXPECT_EQ(a.tensor, b.tensor);
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.elements, b.elements);
  EXPECT_TRUE(Fields(a.base) == Fields(b.base));
  ExpectSame(a.experts, b.experts);
  EXPECT_EQ(a.blocks, b.blocks);
  EXPECT_EQ(a.wants_base, b.wants_base);
}

TEST(ScanSliceCodec, RoundTrips) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const ScanSlice slice = RandomSlice(seed);
    const auto parsed = ParseScanSlice(SerializeScanSlice(slice));
    ASSERT_TRUE(parsed.has_value()) << parsed.error().ToString();
    EXPECT_EQ(parsed->block_size, slice.block_size);
    EXPECT_EQ(parsed->probe, slice.probe);
    EXPECT_EQ(parsed->allow_nonfinite, slice.allow_nonfinite);
    ExpectSame(parsed->base_files, slice.base_files);
    ASSERT_EQ(parsed->expert_files.size(), slice.expert_files.size());
    for (size_t k = 0; k < slice.expert_files.size(); ++k)
      ExpectSame(parsed->expert_files[k], slice.expert_files[k]);
    EXPECT_EQ(parsed->expert_ids, slice.expert_ids);
    ASSERT_EQ(parsed->parts.size(), slice.parts.size());
    for (size_t i = 0; i < slice.parts.size(); ++i) ExpectSame(parsed->parts[i], slice.parts[i]);
    EXPECT_EQ(parsed->expert_share, slice.expert_share);
    ASSERT_EQ(SerializeScanSlice(*parsed), SerializeScanSlice(slice));
  }
}

TEST(ScanReportCodec, RoundTrips) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const ScanReport report = RandomReport(seed);
    ASSERT_EQ(ParseScanReport(SerializeScanReport(report)), report);
  }
}

TEST(ScanCodec, RefusesDamagedBytes) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::string slice = SerializeScanSlice(RandomSlice(seed));
    const std::string report = SerializeScanReport(RandomReport(seed));
    ExpectRefused(slice, ParseScanSlice);
    ExpectRefused(report, ParseScanReport);
    EXPECT_FALSE(ParseScanReport(slice).has_value());
    EXPECT_FALSE(ParseScanSlice(report).has_value());
  }
}

// Flipped lengths of up to 2^63 are among them: they must not be believed.
TEST(ScanCodec, SurvivesFlippedBits) {
  const uint64_t before = PeakMemory();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    ExpectSurvived(SerializeScanSlice(RandomSlice(seed)), ParseScanSlice, SerializeScanSlice);
    ExpectSurvived(SerializeScanReport(RandomReport(seed)), ParseScanReport, SerializeScanReport);
  }
  ExpectMemoryWithin(before, uint64_t{512} << 20);
}

}  // namespace
}  // namespace mergepipe
