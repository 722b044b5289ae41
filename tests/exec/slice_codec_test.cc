#include <gtest/gtest.h>

#include "exec/codec_fixture.h"
#include "exec/draw.h"
#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {
namespace {

using namespace test;

Slice RandomSlice(uint64_t seed) {
  Draw draw(seed);
  Slice slice;
  slice.block_size = draw.Number();
  slice.strategy = {draw.Text(), draw.Real(),   draw.Some([&] { return draw.Real(); }),
                    draw.Real(), draw.Number(), draw.Coin(),
                    draw.Coin()};
  slice.form = draw.Coin() ? OutputForm::kSparse : OutputForm::kFull;
  slice.allow_nonfinite = draw.Coin();
  slice.gather_to_root = draw.Coin();
  slice.copies_known_blocks = draw.Coin();
  slice.base_files = draw.Some([&] { return draw.File(); });
  slice.expert_files = draw.Some([&] { return draw.Some([&] { return draw.File(); }); });
  slice.expert_ids = draw.Some([&] { return draw.Text(); });
  slice.sparse_file = draw.File();
  slice.output_files = draw.Some([&] { return draw.Text(); });
  slice.parts = draw.Some([&] {
    TensorPart part;
    part.tensor = draw.Small();
    part.name = draw.Text();
    part.elements = draw.Number();
    part.begin = draw.Number();
    part.end = draw.Number();
    part.merge = draw.Coin();
    part.compare = draw.Coin();
    part.reads = draw.Small();
    part.base = draw.Source();
    part.out_dtype = draw.Type();
    part.out_file = draw.Small();
    part.out_offset = draw.Number();
    part.touched = draw.Blocks();
    part.sparse = draw.Source();
    part.experts = draw.Some([&] { return draw.Source(); });
    part.selected = draw.Some([&] { return draw.Blocks(); });
    part.selected_elements = draw.Some([&] { return draw.Number(); });
    part.known_hashes = draw.Some([&] { return draw.Some([&] { return draw.Hash(); }); });
    part.known_base_hashes = draw.Some([&] { return draw.Hash(); });
    part.first_rank = draw.Int();
    part.last_rank = draw.Int();
    part.shared_ordinal = draw.Small();
    part.conclusion = draw.Text();
    return part;
  });
  slice.journal = draw.Text();
  slice.identity = draw.Hash();
  slice.merge_share = draw.Number();
  slice.compare_share = draw.Number();
  return slice;
}

SliceReport RandomReport(uint64_t seed) {
  Draw draw(seed);
  SliceReport report;
  report.rank = draw.Int();
  report.host = draw.Text();
  report.expert_bytes_read = draw.Number();
  report.compare_bytes_read = draw.Number();
  report.base_bytes_read = draw.Number();
  report.output_bytes_written = draw.Number();
  report.copied_bytes = draw.Number();
  report.merge_seconds = draw.Real();
  report.sync_seconds = draw.Real();
  report.peak_memory_bytes = draw.Number();
  report.threads = draw.Int();
  report.parts = draw.Some([&] { return draw.Report(); });
  return report;
}

bool operator==(const SourceFile& a, const SourceFile& b) {
  return a.path == b.path && a.size == b.size && a.mtime_ns == b.mtime_ns &&
         a.data_begin == b.data_begin;
}
bool operator==(const SourceTensor& a, const SourceTensor& b) {
  return a.present == b.present && a.dtype == b.dtype && a.file == b.file && a.offset == b.offset;
}

template <typename T>
void ExpectSame(const std::vector<T>& a, const std::vector<T>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_TRUE(a[i] == b[i]) << i;
}

void ExpectSame(const TensorPart& a, const TensorPart& b) {
  EXPECT_EQ(a.tensor, b.tensor);
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.elements, b.elements);
  EXPECT_EQ(a.begin, b.begin);
  EXPECT_EQ(a.end, b.end);
  EXPECT_EQ(a.merge, b.merge);
  EXPECT_EQ(a.compare, b.compare);
  EXPECT_EQ(a.reads, b.reads);
  EXPECT_TRUE(a.base == b.base);
  EXPECT_EQ(a.out_dtype, b.out_dtype);
  EXPECT_EQ(a.out_file, b.out_file);
  EXPECT_EQ(a.out_offset, b.out_offset);
  EXPECT_EQ(a.touched, b.touched);
  EXPECT_TRUE(a.sparse == b.sparse);
  ExpectSame(a.experts, b.experts);
  EXPECT_EQ(a.selected, b.selected);
  EXPECT_EQ(a.selected_elements, b.selected_elements);
  EXPECT_EQ(a.known_hashes, b.known_hashes);
  EXPECT_EQ(a.known_base_hashes, b.known_base_hashes);
  EXPECT_EQ(a.first_rank, b.first_rank);
  EXPECT_EQ(a.last_rank, b.last_rank);
  EXPECT_EQ(a.shared_ordinal, b.shared_ordinal);
  EXPECT_EQ(a.conclusion, b.conclusion);
}

TEST(SliceCodec, RoundTrips) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const Slice slice = RandomSlice(seed);
    const auto parsed = ParseSlice(SerializeSlice(slice));
    ASSERT_TRUE(parsed.has_value()) << parsed.error().ToString();
    EXPECT_EQ(parsed->block_size, slice.block_size);
    EXPECT_EQ(parsed->strategy, slice.strategy);
    EXPECT_EQ(parsed->form, slice.form);
    EXPECT_EQ(parsed->allow_nonfinite, slice.allow_nonfinite);
    EXPECT_EQ(parsed->gather_to_root, slice.gather_to_root);
    EXPECT_EQ(parsed->copies_known_blocks, slice.copies_known_blocks);
    EXPECT_TRUE(parsed->sparse_file == slice.sparse_file);
    ExpectSame(parsed->base_files, slice.base_files);
    ASSERT_EQ(parsed->expert_files.size(), slice.expert_files.size());
    for (size_t k = 0; k < slice.expert_files.size(); ++k)
      ExpectSame(parsed->expert_files[k], slice.expert_files[k]);
    EXPECT_EQ(parsed->expert_ids, slice.expert_ids);
    EXPECT_EQ(parsed->output_files, slice.output_files);
    ASSERT_EQ(parsed->parts.size(), slice.parts.size());
    for (size_t i = 0; i < slice.parts.size(); ++i) ExpectSame(parsed->parts[i], slice.parts[i]);
    EXPECT_EQ(parsed->journal, slice.journal);
    EXPECT_EQ(parsed->identity, slice.identity);
    EXPECT_EQ(parsed->merge_share, slice.merge_share);
    EXPECT_EQ(parsed->compare_share, slice.compare_share);
    ASSERT_EQ(SerializeSlice(*parsed), SerializeSlice(slice));
  }
}

TEST(ReportCodec, RoundTrips) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const SliceReport report = RandomReport(seed);
    ASSERT_EQ(ParseReport(SerializeReport(report)), report);
  }
}

TEST(SliceCodec, RefusesDamagedBytes) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    ExpectRefused(SerializeSlice(RandomSlice(seed)), ParseSlice);
    ExpectRefused(SerializeReport(RandomReport(seed)), ParseReport);
  }
}

// Flipped lengths of up to 2^63 are among them: they must not be believed.
TEST(SliceCodec, SurvivesFlippedBits) {
  const uint64_t before = PeakMemory();
  for (uint64_t seed = 0; seed < 10; ++seed) {
    ExpectSurvived(SerializeSlice(RandomSlice(seed)), ParseSlice, SerializeSlice);
    ExpectSurvived(SerializeReport(RandomReport(seed)), ParseReport, SerializeReport);
  }
  ExpectMemoryWithin(before, uint64_t{512} << 20);
}

}  // namespace
}  // namespace mergepipe
