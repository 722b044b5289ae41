#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "mergepipe/exec/run_slice.h"
#include "mergepipe/format/output_layout.h"
#include "mergepipe/format/safetensors.h"
#include "mergepipe/format/sparse.h"
#include "mergepipe/plan/partition.h"
#include "mergepipe/plan/planner.h"

/// \file
/// Small real checkpoints, the slices of a merge of them, and what runs them.
namespace mergepipe::test {

/// Stored elements, one by one: the plain counterpart of the kernels' conversion.
struct FloatFormat {
  int mantissa_bits;
  int exponent_bits;
};
inline FloatFormat FormatOf(DType dtype) {
  if (dtype == DType::kF16) return {10, 5};
  if (dtype == DType::kBF16) return {7, 8};
  return {23, 8};
}

inline float Decode(DType dtype, const char* bytes) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, bytes, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  const auto [mantissa, exponent] = FormatOf(dtype);
  const int bias = (1 << (exponent - 1)) - 1;
  const int raw = (bits >> mantissa) & ((1 << exponent) - 1);
  const double fraction = bits & ((1 << mantissa) - 1);
  double value = 0;
  if (raw == (1 << exponent) - 1) {
    value = fraction != 0 ? NAN : INFINITY;
  } else if (raw == 0) {
    value = std::ldexp(fraction, 1 - bias - mantissa);
  } else {
    value = std::ldexp(fraction + std::ldexp(1, mantissa), raw - bias - mantissa);
  }
  return static_cast<float>((bits >> 15) != 0 ? -value : value);
}

/// Rounds to nearest-even; finite values only, infinity if too large.
inline std::string Encode(DType dtype, float value) {
  if (dtype == DType::kF32) return {reinterpret_cast<const char*>(&value), 4};
  const auto [mantissa, exponent] = FormatOf(dtype);
  const int bias = (1 << (exponent - 1)) - 1;
  const double magnitude = std::fabs(static_cast<double>(value));
  uint32_t bits = 0;
  if (magnitude != 0) {
    const int e = std::max(std::ilogb(magnitude), 1 - bias);
    // Subnormals and normals count up alike, and a carry goes into the exponent.
    const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, mantissa - e)));
    bits = steps + (static_cast<uint32_t>(e + bias - 1) << mantissa);
    bits = std::min(bits, ((uint32_t{1} << exponent) - 1) << mantissa);
  }
  const auto stored = static_cast<uint16_t>(bits | (std::signbit(value) ? 0x8000u : 0u));
  return {reinterpret_cast<const char*>(&stored), 2};
}

struct TestTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  std::string bytes;

  uint64_t elements() const { return *CheckedProduct(shape); }
  float At(uint64_t i) const { return Decode(dtype, bytes.data() + i * DTypeSize(dtype)); }
  void Set(uint64_t i, float value) {
    bytes.replace(i * DTypeSize(dtype), DTypeSize(dtype), Encode(dtype, value));
  }
};
using TestModel = std::vector<TestTensor>;

/// Values around 1 with many equal ones, so that thresholds have ties; integer types get their
/// index.
inline TestTensor MakeTensor(const std::string& name, DType dtype, std::vector<uint64_t> shape,
                             uint64_t seed) {
  std::mt19937_64 random(seed);
  TestTensor tensor{name, dtype, std::move(shape), {}};
  const uint64_t elements = tensor.elements();
  for (uint64_t i = 0; i < elements; ++i) {
    if (IsFloat(dtype)) {
      tensor.bytes +=
          Encode(dtype, static_cast<float>(static_cast<int64_t>(random() % 513) - 256) / 64);
    } else {
      tensor.bytes += std::string(DTypeSize(dtype), static_cast<char>(i));
    }
  }
  return tensor;
}

inline std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A safetensors file.
inline std::string ModelText(const TestModel& model) {
  SafetensorsHeader header;
  std::string data;
  for (const TestTensor& tensor : model) {
    header.entries.push_back(
        {tensor.name, tensor.dtype, tensor.shape, data.size(), data.size() + tensor.bytes.size()});
    data += tensor.bytes;
  }
  return SerializeSafetensorsHeader(header) + data;
}

inline void WriteModel(const std::string& path, const TestModel& model) {
  std::ofstream(path, std::ios::binary) << ModelText(model);
}

/// A directory of its own, removed at the end.
class TempDirectory {
 public:
  TempDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "mergepipe_exec_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// A planned merge of models that lie in `directory`.
struct TestMerge {
  ModelRecord base;
  std::vector<ModelRecord> experts;
  Plan plan;
  OutputLayout layout;
  OutputLayout sparse_layout;
  std::string staging;

  const OutputFile& Output(OutputForm form) const {
    return (form == OutputForm::kFull ? layout : sparse_layout).files[0];
  }
  std::string OutputPath(OutputForm form = OutputForm::kFull) const {
    return staging + "/" + Output(form).name;
  }

  /// Makes the output file with its header, and zeros.
  void Stage(OutputForm form = OutputForm::kFull) const {
    if (form == OutputForm::kFull) std::filesystem::remove_all(staging);
    std::filesystem::create_directory(staging);
    std::filesystem::remove(OutputPath(form));
    auto file = PosixFileSystem().Create(OutputPath(form), Output(form).size);
    ASSERT_TRUE(file.has_value());
    ASSERT_TRUE((*file)->WriteAt(0, std::as_bytes(std::span(Output(form).header))).has_value());
  }

  std::vector<Slice> Slices(int ranks, OutputForm form = OutputForm::kFull) const;
  /// That make the full output from the sparse one at `path`.
  std::vector<Slice> MaterializeSlices(int ranks, const std::string& path) const;

  /// Bytes of the output's touched blocks of tensor `t` before block `end`.
  uint64_t TouchedBytes(uint32_t t, BlockIndex end) const {
    const PlannedTensor& tensor = plan.tensors[t];
    const BlockSet before = tensor.Touched(plan.options.block_size).Within(BlockIndex(0), end);
    return tensor.ElementsOf(before, plan.options.block_size) * DTypeSize(tensor.out_dtype);
  }
};

inline OutputLayout SparseLayoutOf(const Plan& plan) {
  std::vector<SparseTensor> tensors;
  for (const PlannedTensor& planned : plan.tensors) {
    SparseTensor tensor{planned.name, planned.out_dtype, planned.shape, {}};
    planned.Touched(plan.options.block_size).ForEachRun([&](BlockIndex first, BlockIndex last) {
      for (uint64_t b = first.value; b < last.value; ++b) tensor.blocks.push_back(b);
    });
    tensors.push_back(std::move(tensor));
  }
  return *ComputeSparseLayout(tensors, plan.options.block_size, plan.base.fingerprint);
}

inline ModelRecord ReadRecord(const std::string& path, const std::string& id) {
  ModelRecord record;
  record.id = id;
  auto layout = ReadModel(PosixFileSystem(), path);
  EXPECT_TRUE(layout.has_value()) << layout.error().ToString();
  record.layout = *layout;
  record.fingerprint = HashText(id);
  return record;
}

/// Reads the headers of base.safetensors, e0.safetensors, ... in `directory` and plans.
inline TestMerge PlanMerge(const std::string& directory, size_t experts, PlanOptions options) {
  TestMerge merge;
  merge.base = ReadRecord(directory + "/base.safetensors", "base");
  PlanInput input;
  for (size_t k = 0; k < experts; ++k) {
    const std::string id = "e" + std::to_string(k);
    merge.experts.push_back(ReadRecord(directory + "/" + id + ".safetensors", id));
  }
  for (const ModelRecord& expert : merge.experts) input.experts.push_back(&expert);
  if (options.strategy.weights.empty()) options.strategy.weights.assign(experts, 1.0);
  input.base = &merge.base;
  input.options = options;
  input.options.scoring = "uniform";  // needs no statistics
  input.observation_rounds = (*FindStrategy(options.strategy.name))->rounds(options.strategy);
  auto plan = MakePlan(input);
  EXPECT_TRUE(plan.has_value()) << plan.error().ToString();
  merge.plan = *plan;
  merge.layout = *ComputeOutputLayout(merge.base.layout, options.out_dtype);
  merge.sparse_layout = SparseLayoutOf(merge.plan);
  merge.staging = directory + "/staging";
  return merge;
}

inline void WriteModels(const std::string& directory, const TestModel& base,
                        const std::vector<TestModel>& experts) {
  WriteModel(directory + "/base.safetensors", base);
  for (size_t k = 0; k < experts.size(); ++k)
    WriteModel(directory + "/e" + std::to_string(k) + ".safetensors", experts[k]);
}

inline const TensorInfo& TensorNamed(const ModelRecord& model, const std::string& name) {
  for (const TensorInfo& tensor : model.layout.tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::out_of_range(name);
}

inline std::vector<Slice> TestMerge::Slices(int ranks, OutputForm form) const {
  const auto source = [](const TensorInfo& tensor) {
    return SourceTensor{true, tensor.dtype, tensor.file, tensor.offset};
  };
  const auto files = [](const ModelRecord& model) {
    const ModelFile& file = model.layout.files[0];
    return std::vector<SourceFile>{
        {model.layout.FilePath(0), file.info.size, file.info.mtime_ns, file.data_begin}};
  };
  const auto cuts = PartitionPlan(plan, ranks);
  std::map<uint32_t, std::pair<int, int>> makers;
  for (int r = 0; r < ranks; ++r) {
    for (const TensorRange& range : cuts[static_cast<size_t>(r)].ranges) {
      makers.try_emplace(range.tensor, r, r).first->second.second = r;
    }
  }
  std::map<uint32_t, uint32_t> ordinals;
  for (const auto& [tensor, group] : makers) {
    if (group.first != group.second)
      ordinals.emplace(tensor, static_cast<uint32_t>(ordinals.size()));
  }
  std::vector<Slice> slices;
  for (const PlanSlice& cut : cuts) {
    Slice slice;
    slice.block_size = plan.options.block_size;
    slice.strategy = plan.options.strategy;
    slice.allow_nonfinite = plan.options.allow_nonfinite;
    slice.base_files = files(base);
    for (const ModelRecord& expert : experts) {
      slice.expert_files.push_back(files(expert));
      slice.expert_ids.push_back(expert.id);
    }
    slice.form = form;
    slice.output_files = {OutputPath(form)};
    for (const TensorRange& range : cut.ranges) {
      const PlannedTensor& planned = plan.tensors[range.tensor];
      const TensorInfo& out = layout.tensors[range.tensor];
      TensorPart part;
      part.tensor = range.tensor;
      part.name = planned.name;
      part.elements = planned.elements();
      part.begin = range.begin.value;
      part.end = range.end.value;
      part.merge = planned.rule == TensorRule::kMerge;
      part.compare = planned.compare;
      part.reads = planned.reads;
      part.base = source(base.layout.tensors[range.tensor]);
      part.out_dtype = planned.out_dtype;
      part.out_file = out.file;
      part.touched = planned.Touched(slice.block_size).Within(range.begin, range.end);
      part.out_offset =
          form == OutputForm::kFull
              ? out.offset + range.begin.value * slice.block_size * DTypeSize(part.out_dtype)
              : sparse_layout.tensors[range.tensor].offset +
                    TouchedBytes(range.tensor, range.begin);
      for (size_t k = 0; k < experts.size(); ++k) {
        part.experts.push_back(source(TensorNamed(experts[k], planned.sources[k].name)));
        part.selected.push_back(planned.selected[k].Within(range.begin, range.end));
        part.selected_elements.push_back(planned.ElementsOf(planned.selected[k], slice.block_size));
      }
      std::tie(part.first_rank, part.last_rank) = makers.at(range.tensor);
      if (part.shared()) part.shared_ordinal = ordinals.at(range.tensor);
      slice.merge_share += RangeMergeBytes(plan, range);
      slice.compare_share += RangeCompareBytes(plan, range);
      slice.parts.push_back(part);
    }
    slices.push_back(slice);
  }
  return slices;
}

inline std::vector<Slice> TestMerge::MaterializeSlices(int ranks, const std::string& path) const {
  std::vector<Slice> slices = Slices(ranks);
  const auto info = PosixFileSystem().Stat(path);
  for (Slice& slice : slices) {
    slice.sparse_file = {path, info->size, info->mtime_ns, 0};
    slice.expert_files.clear();
    slice.expert_ids.clear();
    slice.merge_share = slice.compare_share = 0;
    for (TensorPart& part : slice.parts) {
      part.merge = part.compare = false;
      part.experts.clear();
      part.selected.clear();
      part.selected_elements.clear();
      part.sparse = {!part.touched.Empty(), part.out_dtype, 0,
                     sparse_layout.tensors[part.tensor].offset +
                         TouchedBytes(part.tensor, BlockIndex(part.begin))};
    }
  }
  return slices;
}

inline constexpr ExecLimits kAmple{.threads = 1, .memory_bytes = uint64_t{1} << 30};

/// Merges in one process; the output's bytes, or what went wrong.
inline Result<std::string> RunAlone(const TestMerge& merge, const ExecLimits& limits = kAmple,
                                    SliceReport* report = nullptr,
                                    OutputForm form = OutputForm::kFull) {
  merge.Stage(form);
  const auto communicator = LocalCommunicator();
  MERGEPIPE_ASSIGN_OR_RETURN(SliceReport mine, RunSlice(PosixFileSystem(), *communicator,
                                                        merge.Slices(1, form)[0], limits));
  if (report != nullptr) *report = std::move(mine);
  return ReadBytes(merge.OutputPath(form));
}

/// The least memory that is not refused. The output is not there, so no try goes beyond that check.
inline uint64_t LeastMemory(const TestMerge& merge, OutputForm form, int threads) {
  std::filesystem::remove_all(merge.staging);
  const Slice slice = merge.Slices(1, form)[0];
  uint64_t too_little = 0;
  uint64_t enough = uint64_t{1} << 30;
  while (enough - too_little > 1) {
    const uint64_t middle = (too_little + enough) / 2;
    const auto tried = RunSlice(PosixFileSystem(), *LocalCommunicator(), slice, {threads, middle});
    (tried.error().kind() == ErrorKind::kNoSpace ? too_little : enough) = middle;
  }
  return enough;
}

/// Whether `text` holds `part`; shows both if not.
inline ::testing::AssertionResult Says(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << part << "' is not in:\n" << text;
}

}  // namespace mergepipe::test
