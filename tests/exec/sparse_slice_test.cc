#include <gtest/gtest.h>

#include "exec/counting_file_system.h"
#include "exec/exec_fixture.h"

/// \file
/// Sparse outputs, and full ones made from them.
namespace mergepipe {
namespace {

using namespace test;

constexpr uint64_t kBlock = 64;
constexpr const char* kStrategies[] = {"avg", "ties", "dare"};

class SparseSlice : public ::testing::Test {
 protected:
  static TestModel Model(DType dtype, uint64_t seed) {
    return {MakeTensor("cube", dtype, {3, 5, 7}, seed), MakeTensor("ids", DType::kI64, {9}, 0),
            MakeTensor("long", dtype, {5001}, seed + 2), MakeTensor("none", dtype, {0, 4}, seed),
            MakeTensor("scalar", dtype, {}, seed + 3)};
  }

  TestMerge Plan(DType dtype, const char* strategy, double top_p = 0.3) {
    WriteModels(directory_.path(), Model(dtype, 1), {Model(dtype, 10), Model(dtype, 20)});
    PlanOptions options = options_;
    options.strategy.name = strategy;
    options.strategy.density = 0.3;
    options.block_size = kBlock;
    options.top_p = top_p;
    return PlanMerge(directory_.path(), 2, options);
  }

  static Result<std::string> Sparse(const TestMerge& merge, const ExecLimits& limits = kAmple,
                                    SliceReport* report = nullptr) {
    return RunAlone(merge, limits, report, OutputForm::kSparse);
  }

  static Result<SliceReport> Materialize(const TestMerge& merge,
                                         const ExecLimits& limits = kAmple) {
    const std::string sparse = merge.staging + ".sparse";
    std::filesystem::rename(merge.OutputPath(OutputForm::kSparse), sparse);
    merge.Stage();
    return RunSlice(PosixFileSystem(), *LocalCommunicator(), merge.MaterializeSlices(1, sparse)[0],
                    limits);
  }

  // Touched bytes of all tensors with elements of that size.
  static uint64_t TouchedElements(const TestMerge& merge) {
    uint64_t elements = 0;
    for (const PlannedTensor& tensor : merge.plan.tensors)
      elements += tensor.ElementsOf(tensor.Touched(kBlock), kBlock);
    return elements;
  }

  TempDirectory directory_;
  PlanOptions options_;
};

// The touched blocks of the full output, in order, after the header and the indexes.
std::string BlocksOf(const TestMerge& merge, const std::string& full) {
  std::string bytes = merge.sparse_layout.files[0].header;
  for (size_t t = 0; t < merge.plan.tensors.size(); ++t) {
    const TensorInfo& tensor = merge.layout.tensors[t];
    const uint64_t size = DTypeSize(tensor.dtype);
    merge.plan.tensors[t].Touched(kBlock).ForEachRun([&](BlockIndex first, BlockIndex last) {
      const uint64_t begin = first.value * kBlock;
      const uint64_t end = std::min(tensor.elements(), last.value * kBlock);
      bytes += full.substr(tensor.offset + begin * size, (end - begin) * size);
    });
  }
  return bytes;
}

TEST_F(SparseSlice, HoldsTheTouchedBlocksOfTheFullOutput) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const char* strategy : kStrategies) {
      for (const auto out : {std::optional<DType>(), std::optional(DType::kF16)}) {
        for (const double top_p : {0.05, 0.3, 1.0}) {
          options_.out_dtype = out;
          const TestMerge merge = Plan(dtype, strategy, top_p);
          const auto full = RunAlone(merge);
          const auto sparse = Sparse(merge);
          ASSERT_TRUE(full.has_value() && sparse.has_value());
          ASSERT_TRUE(*sparse == BlocksOf(merge, *full)) << strategy << " " << top_p;
          const auto report = Materialize(merge);
          ASSERT_TRUE(report.has_value()) << report.error().ToString();
          ASSERT_TRUE(ReadBytes(merge.OutputPath()) == *full) << strategy << " " << top_p;
        }
      }
    }
  }
}

TEST_F(SparseSlice, ThreadsAndMemoryDoNotChangeABit) {
  for (const char* strategy : kStrategies) {
    for (const uint64_t resident : {uint64_t{0}, kMiB}) {
      options_.resident_bytes = resident;
      const TestMerge merge = Plan(DType::kBF16, strategy);
      const auto full = RunAlone(merge);
      const auto expected = Sparse(merge);
      ASSERT_TRUE(full.has_value() && expected.has_value());
      for (const int threads : {1, 3}) {
        const uint64_t least = LeastMemory(merge, OutputForm::kSparse, threads);
        for (const uint64_t more : {0, 1000, 1 << 20}) {
          const uint64_t memory = least + more;
          const auto sparse = Sparse(merge, {threads, memory});
          ASSERT_TRUE(sparse.has_value()) << sparse.error().ToString();
          ASSERT_TRUE(*sparse == *expected) << strategy << ", " << threads << " threads";
          ASSERT_TRUE(Materialize(merge, {threads, memory}).has_value());
          ASSERT_TRUE(ReadBytes(merge.OutputPath()) == *full) << strategy;
        }
      }
    }
  }
}

TEST_F(SparseSlice, MovesTheTouchedBytesOnly) {
  for (const char* strategy : kStrategies) {
    options_.resident_bytes = 0;
    const TestMerge merge = Plan(DType::kBF16, strategy);
    const uint64_t touched = 2 * TouchedElements(merge);
    const uint64_t rounds = std::string_view(strategy) == "ties" ? 2 : 0;
    merge.Stage(OutputForm::kSparse);
    CountingFileSystem files;
    const auto report =
        RunSlice(files, *LocalCommunicator(), merge.Slices(1, OutputForm::kSparse)[0], kAmple);
    ASSERT_TRUE(report.has_value()) << report.error().ToString();
    EXPECT_EQ(report->base_bytes_read, touched * (1 + rounds) + 72);  // "ids" is compared
    EXPECT_EQ(files.BytesRead(directory_.path() + "/base.safetensors"), report->base_bytes_read);
    EXPECT_EQ(report->output_bytes_written, touched);
    EXPECT_EQ(report->copied_bytes, 0u);
    EXPECT_EQ(report->expert_bytes_read, merge.plan.merge_bytes);
    EXPECT_EQ(report->compare_bytes_read, merge.plan.compare_bytes);
  }
}

TEST_F(SparseSlice, ReportsTheTouchedBlocks) {
  const TestMerge merge = Plan(DType::kBF16, "ties");
  SliceReport full;
  SliceReport sparse;
  ASSERT_TRUE(RunAlone(merge, kAmple, &full).has_value());
  ASSERT_TRUE(Sparse(merge, kAmple, &sparse).has_value());
  const auto made = Materialize(merge);
  ASSERT_TRUE(made.has_value()) << made.error().ToString();
  EXPECT_EQ(made->expert_bytes_read + made->compare_bytes_read, 0u);
  EXPECT_EQ(made->base_bytes_read, merge.layout.WeightBytes());
  EXPECT_EQ(made->copied_bytes, full.copied_bytes);
  ASSERT_EQ(sparse.parts.size(), full.parts.size());
  for (size_t p = 0; p < full.parts.size(); ++p) {
    const PartReport& whole = full.parts[p];
    const BlockSet touched = merge.plan.tensors[whole.tensor].Touched(kBlock);
    std::vector<Hash128> hashes;
    std::vector<Hash128> base;
    for (uint64_t b = 0; b < touched.size(); ++b) {
      if (!touched.Contains(BlockIndex(b))) continue;
      hashes.push_back(whole.block_hashes[b]);
      base.push_back(whole.base_hashes[b]);
    }
    EXPECT_EQ(sparse.parts[p].block_hashes, hashes);
    EXPECT_EQ(sparse.parts[p].base_hashes, base);
    EXPECT_EQ(sparse.parts[p].read_hashes, whole.read_hashes);
    EXPECT_EQ(sparse.parts[p].differs, whole.differs);
    EXPECT_EQ(made->parts[p].block_hashes, whole.block_hashes);
    EXPECT_EQ(made->parts[p].base_hashes, whole.base_hashes);
  }
}

TEST_F(SparseSlice, AChangedSparseFileIsNamed) {
  const TestMerge merge = Plan(DType::kF32, "avg");
  ASSERT_TRUE(Sparse(merge).has_value());
  const std::string path = merge.OutputPath(OutputForm::kSparse);
  Slice slice = merge.MaterializeSlices(1, path)[0];
  std::filesystem::rename(path, path + ".moved");
  slice.sparse_file.path = path + ".moved";
  ++slice.sparse_file.mtime_ns;
  merge.Stage(OutputForm::kFull);
  const auto report = RunSlice(PosixFileSystem(), *LocalCommunicator(), slice, kAmple);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().kind(), ErrorKind::kBadInput);
  EXPECT_TRUE(Says(report.error().ToString(), slice.sparse_file.path));
}

// --- Hashes that are known before. ---

Hash128 HashOfBlock(const TestTensor& tensor, uint64_t block) {
  const uint64_t size = kBlock * DTypeSize(tensor.dtype);
  return HashText(std::string_view(tensor.bytes).substr(block * size, size));
}

class KnownHashes : public SparseSlice {
 protected:
  KnownHashes()
      : base_(Model(DType::kBF16, 1)), experts_{Model(DType::kBF16, 10), Model(DType::kBF16, 20)} {}

  // All that can be known of them.
  std::vector<Slice> WithHashes(const TestMerge& merge, OutputForm form) const {
    std::vector<Slice> slices = merge.Slices(1, form);
    for (TensorPart& part : slices[0].parts) {
      for (uint64_t b = part.begin; b < part.end; ++b)
        part.known_base_hashes.push_back(HashOfBlock(base_[part.tensor], b));
      part.known_hashes.resize(2);
      for (size_t k = 0; k < 2; ++k) {
        for (uint64_t b = part.begin; b < part.end; ++b) {
          if (part.selected[k].Contains(BlockIndex(b)))
            part.known_hashes[k].push_back(HashOfBlock(experts_[k][part.tensor], b));
        }
      }
    }
    return slices;
  }

  static std::string Run(const TestMerge& merge, const Slice& slice, OutputForm form) {
    merge.Stage(form);
    const auto report = RunSlice(PosixFileSystem(), *LocalCommunicator(), slice, kAmple);
    if (report) return "no error";
    EXPECT_EQ(report.error().kind(), ErrorKind::kBadInput);
    return report.error().ToString();
  }

  TestModel base_;
  std::vector<TestModel> experts_;
};

constexpr uint32_t kLong = 2;  // the tensor's number

TEST_F(KnownHashes, WhatWasAnalyzedIsMerged) {
  for (const char* strategy : kStrategies) {
    const TestMerge merge = Plan(DType::kBF16, strategy);
    for (const OutputForm form : {OutputForm::kFull, OutputForm::kSparse})
      EXPECT_EQ(Run(merge, WithHashes(merge, form)[0], form), "no error");
  }
}

TEST_F(KnownHashes, BlocksThatStayMayGoFromFileToFile) {
  for (const char* strategy : kStrategies) {
    const TestMerge merge = Plan(DType::kBF16, strategy);
    const auto read = RunAlone(merge);
    ASSERT_TRUE(read.has_value());
    Slice slice = WithHashes(merge, OutputForm::kFull)[0];
    slice.copies_known_blocks = true;
    EXPECT_EQ(Run(merge, slice, OutputForm::kFull), "no error");
    EXPECT_TRUE(ReadBytes(merge.OutputPath()) == *read) << strategy;
  }
}

TEST_F(KnownHashes, AnExpertThatChangedInPlaceIsNamed) {
  TestMerge merge = Plan(DType::kBF16, "ties");
  const BlockSet& selected = merge.plan.tensors[kLong].selected[1];
  uint64_t block = selected.size() - 1;
  while (!selected.Contains(BlockIndex(block))) --block;
  experts_[1][kLong].bytes[block * kBlock * 2 + 1] ^= 1;
  for (const OutputForm form : {OutputForm::kFull, OutputForm::kSparse}) {
    const std::string error = Run(merge, WithHashes(merge, form)[0], form);
    EXPECT_TRUE(Says(error, "expert 'e1': tensor 'long', block " + std::to_string(block) +
                                ": is not what was analyzed: the file changed in place"));
    EXPECT_TRUE(Says(error, "mergepipe analyze --force"));
  }
  // Hashes of this expert that are not known cannot be missed.
  Slice slice = WithHashes(merge, OutputForm::kFull)[0];
  for (TensorPart& part : slice.parts) part.known_hashes[1].clear();
  EXPECT_EQ(Run(merge, slice, OutputForm::kFull), "no error");
}

TEST_F(KnownHashes, ABaseThatChangedInPlaceIsNamed) {
  const TestMerge merge = Plan(DType::kBF16, "avg");
  const BlockSet touched = merge.plan.tensors[kLong].Touched(kBlock);
  for (const bool in_touched : {false, true}) {
    uint64_t block = 0;
    while (touched.Contains(BlockIndex(block)) != in_touched) ++block;
    TestModel changed = base_;
    changed[kLong].bytes[block * kBlock * 2] ^= 1;
    std::swap(base_, changed);
    const std::string says = "base: tensor 'long', block " + std::to_string(block) + ": is not";
    EXPECT_TRUE(Says(Run(merge, WithHashes(merge, OutputForm::kFull)[0], OutputForm::kFull), says));
    const std::string sparse =
        Run(merge, WithHashes(merge, OutputForm::kSparse)[0], OutputForm::kSparse);
    // A sparse output does not read what is not touched.
    EXPECT_TRUE(Says(sparse, in_touched ? says : "no error"));
    std::swap(base_, changed);
  }
}

}  // namespace
}  // namespace mergepipe
