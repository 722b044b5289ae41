#include <gtest/gtest.h>

#include <random>

#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}
  uint64_t Number() { return random_() >> (random_() % 64); }
  uint32_t Small() { return static_cast<uint32_t>(random_() % 5); }
  int Int() { return static_cast<int>(Small()) - 1; }
  bool Coin() { return random_() % 2 == 0; }
  double Real() { return static_cast<double>(static_cast<int64_t>(random_())) / 3; }
  std::string Text() {
    return std::string(Small(), 'x') + std::string("\0\xff", 2) + std::to_string(Small());
  }
  DType Type() { return static_cast<DType>(random_() % 13); }
  Hash128 Hash() { return {random_(), random_()}; }
  NonFiniteCount Count() { return {Number(), Number()}; }
  SourceFile File() { return {Text(), Number(), -static_cast<int64_t>(Number() >> 1), Number()}; }
  SourceTensor Source() { return {Coin(), Type(), Small(), Number()}; }
  BlockSet Blocks() {
    BlockSet blocks(40 * Small());
    for (uint64_t b = 0; b < blocks.size(); ++b) {
      if (Coin()) blocks.Add(BlockIndex(b));
    }
    return blocks;
  }
  template <typename Make>
  auto Some(Make make) {
    std::vector<decltype(make())> all;
    for (uint32_t i = Small(); i > 0; --i) all.push_back(make());
    return all;
  }

 private:
  std::mt19937_64 random_;
};

Slice RandomSlice(uint64_t seed) {
  Draw draw(seed);
  Slice slice;
  slice.block_size = draw.Number();
  slice.strategy = {draw.Text(), draw.Real(),   draw.Some([&] { return draw.Real(); }),
                    draw.Real(), draw.Number(), draw.Coin(),
                    draw.Coin()};
  slice.allow_nonfinite = draw.Coin();
  slice.base_files = draw.Some([&] { return draw.File(); });
  slice.expert_files = draw.Some([&] { return draw.Some([&] { return draw.File(); }); });
  slice.expert_ids = draw.Some([&] { return draw.Text(); });
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
    part.experts = draw.Some([&] { return draw.Source(); });
    part.selected = draw.Some([&] { return draw.Blocks(); });
    part.selected_elements = draw.Some([&] { return draw.Number(); });
    part.first_rank = draw.Int();
    part.last_rank = draw.Int();
    part.shared_ordinal = draw.Small();
    return part;
  });
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
  report.parts = draw.Some([&] {
    PartReport part;
    part.tensor = draw.Small();
    part.begin = draw.Number();
    part.block_hashes = draw.Some([&] { return draw.Hash(); });
    part.base_hashes = draw.Some([&] { return draw.Hash(); });
    part.read_hashes = draw.Some([&] { return draw.Some([&] { return draw.Hash(); }); });
    part.inputs = draw.Some([&] { return draw.Count(); });
    part.made = draw.Count();
    part.differs = draw.Some([&] { return static_cast<uint8_t>(draw.Small()); });
    return part;
  });
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
  ExpectSame(a.experts, b.experts);
  EXPECT_EQ(a.selected, b.selected);
  EXPECT_EQ(a.selected_elements, b.selected_elements);
  EXPECT_EQ(a.first_rank, b.first_rank);
  EXPECT_EQ(a.last_rank, b.last_rank);
  EXPECT_EQ(a.shared_ordinal, b.shared_ordinal);
}

TEST(SliceCodec, RoundTrips) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const Slice slice = RandomSlice(seed);
    const auto parsed = ParseSlice(SerializeSlice(slice));
    ASSERT_TRUE(parsed.has_value()) << parsed.error().ToString();
    EXPECT_EQ(parsed->block_size, slice.block_size);
    EXPECT_EQ(parsed->strategy, slice.strategy);
    EXPECT_EQ(parsed->allow_nonfinite, slice.allow_nonfinite);
    ExpectSame(parsed->base_files, slice.base_files);
    ASSERT_EQ(parsed->expert_files.size(), slice.expert_files.size());
    for (size_t k = 0; k < slice.expert_files.size(); ++k)
      ExpectSame(parsed->expert_files[k], slice.expert_files[k]);
    EXPECT_EQ(parsed->expert_ids, slice.expert_ids);
    EXPECT_EQ(parsed->output_files, slice.output_files);
    ASSERT_EQ(parsed->parts.size(), slice.parts.size());
    for (size_t i = 0; i < slice.parts.size(); ++i) ExpectSame(parsed->parts[i], slice.parts[i]);
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

// Every truncation and an addition are refused.
template <typename Parse>
void ExpectRefused(const std::string& bytes, Parse parse) {
  std::vector<std::string> damaged = {bytes + "x"};
  for (size_t length = 0; length < bytes.size(); ++length)
    damaged.push_back(bytes.substr(0, length));
  for (const std::string& text : damaged) {
    const auto parsed = parse(text);
    ASSERT_FALSE(parsed.has_value()) << text.size() << " of " << bytes.size() << " bytes";
    ASSERT_EQ(parsed.error().kind(), ErrorKind::kInternal);
  }
}

TEST(SliceCodec, RefusesDamagedBytes) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    ExpectRefused(SerializeSlice(RandomSlice(seed)), ParseSlice);
    ExpectRefused(SerializeReport(RandomReport(seed)), ParseReport);
  }
}

}  // namespace
}  // namespace mergepipe
