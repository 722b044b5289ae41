#pragma once

#include "exec/exec_fixture.h"
#include "mergepipe/exec/scan.h"
#include "mergepipe/plan/statistics.h"

/// \file
/// Scans of small checkpoints, and what they must find.
namespace mergepipe::test {

/// A base and its experts (which may lack tensors of it) as files in `directory`, and how they are
/// scanned.
struct TestScan {
  FileSystem& files;
  std::string directory;
  TestModel base;
  std::vector<TestModel> experts;
  uint64_t block_size = 64;
  uint64_t stride = 0;  ///< of a probe; 0: whole blocks
  bool wants_base = true;
  bool allow_nonfinite = false;

  std::string Path(const std::string& id) const { return directory + "/" + id + ".safetensors"; }

  void WriteAll() const {
    Write("base", base);
    for (size_t k = 0; k < experts.size(); ++k) Write("e" + std::to_string(k), experts[k]);
  }
  void Write(const std::string& id, const TestModel& model) const {
    ASSERT_TRUE(files.Remove(Path(id)).has_value());
    ASSERT_TRUE(WriteNewFile(files, Path(id), ModelText(model)).has_value());
  }

  ModelLayout Layout(const std::string& id) const {
    const auto layout = ReadModel(files, Path(id));
    EXPECT_TRUE(layout.has_value()) << layout.error().ToString();
    return layout.value_or(ModelLayout());
  }

  /// The blocks of each of the base's tensors that are wanted.
  std::vector<BlockSet> Wanted() const {
    const ModelLayout layout = Layout("base");
    const ProbeNumbering numbers(layout, block_size);
    std::vector<BlockSet> wanted;
    for (uint32_t t = 0; t < layout.tensors.size(); ++t) {
      wanted.push_back(numbers.Probed(t, std::max<uint64_t>(1, stride)));
    }
    return wanted;
  }

  /// A part for each float tensor. Blocks are dealt out to the ranks in runs of equal length.
  std::vector<ScanSlice> Slices(int ranks) const {
    const auto list = [](const ModelLayout& layout) {
      const ModelFile& file = layout.files[0];
      return std::vector<SourceFile>{
          {layout.FilePath(0), file.info.size, file.info.mtime_ns, file.data_begin}};
    };
    const ModelLayout base_layout = Layout("base");
    const std::vector<BlockSet> wanted = Wanted();
    const uint64_t all = ProbeNumbering(base_layout, block_size).Count();
    std::vector<ScanSlice> slices;
    for (uint64_t r = 0; r < static_cast<uint64_t>(ranks); ++r) {
      ScanSlice slice;
      slice.block_size = block_size;
      slice.probe = stride != 0;
      slice.allow_nonfinite = allow_nonfinite;
      slice.base_files = list(base_layout);
      std::vector<ModelLayout> layouts;
      for (size_t k = 0; k < experts.size(); ++k) {
        slice.expert_ids.push_back("e" + std::to_string(k));
        layouts.push_back(Layout(slice.expert_ids.back()));
        slice.expert_files.push_back(list(layouts.back()));
      }
      const uint64_t begin = all * r / static_cast<uint64_t>(ranks);
      const uint64_t end = all * (r + 1) / static_cast<uint64_t>(ranks);
      uint64_t first = 0;
      for (uint32_t t = 0; t < wanted.size(); ++t) {
        const TensorInfo& tensor = base_layout.tensors[t];
        const uint64_t size = wanted[t].size();
        const auto within = [&](uint64_t number) {
          return BlockIndex(std::clamp(number, first, first + size) - first);
        };
        ScanPart part;
        part.tensor = t;
        part.name = tensor.name;
        part.elements = tensor.elements();
        part.base = {true, tensor.dtype, tensor.file, tensor.offset};
        for (const ModelLayout& layout : layouts) part.experts.push_back(Find(layout, tensor));
        part.blocks = wanted[t].Within(within(begin), within(end));
        part.wants_base = wants_base;
        first += size;
        if (!IsFloat(tensor.dtype)) continue;
        slice.expert_share += ScanExpertBytes(slice, part);
        slice.parts.push_back(part);
      }
      slices.push_back(slice);
    }
    return slices;
  }

  static SourceTensor Find(const ModelLayout& layout, const TensorInfo& wanted) {
    for (const TensorInfo& tensor : layout.tensors) {
      if (tensor.name == wanted.name) return {true, tensor.dtype, tensor.file, tensor.offset};
    }
    return {};
  }
};

}  // namespace mergepipe::test
