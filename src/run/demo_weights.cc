#include "run/demo_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "mergepipe/base/checked.h"
#include "mergepipe/base/units.h"
#include "mergepipe/format/safetensors.h"
#include "run/demo_values.h"

namespace mergepipe {
namespace {

constexpr uint64_t kBufferBytes = 8 * kMiB;
constexpr uint64_t kThreadBytes = kMiB / 8;  // what a thread fills at a time

// Fills `out` with the stored elements from `first` on, on all threads.
void FillInParallel(const DemoValues& values, uint64_t first, uint64_t element_size,
                    std::span<std::byte> out) {
  const auto pieces = static_cast<int64_t>(CeilDivide(out.size(), kThreadBytes));
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const uint64_t begin = static_cast<uint64_t>(piece) * kThreadBytes;
    const uint64_t size = std::min(kThreadBytes, out.size() - begin);
    values.Fill(first + begin / element_size, out.subspan(begin, size));
  }
}

Status WriteTensor(WritableFile& file, uint64_t offset, const DemoValues& values, uint64_t elements,
                   uint64_t element_size, std::span<std::byte> buffer) {
  const uint64_t step = buffer.size() / element_size;
  for (uint64_t first = 0; first < elements; first += step) {
    const auto piece = buffer.first(std::min(step, elements - first) * element_size);
    FillInParallel(values, first, element_size, piece);
    MERGEPIPE_RETURN_IF_ERROR(file.WriteAt(offset + first * element_size, piece));
  }
  return {};
}

std::string ShardName(uint32_t shard, uint32_t count) {
  if (count == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, count);
}

}  // namespace

std::vector<DemoShard> SplitIntoShards(const std::vector<DemoTensor>& tensors, uint32_t count) {
  uint64_t total = 0;
  for (const DemoTensor& tensor : tensors) total += tensor.elements();

  std::vector<DemoShard> shards;
  size_t next = 0;
  uint64_t done = 0;
  for (uint32_t shard = 0; shard < count; ++shard) {
    DemoShard& made = shards.emplace_back(DemoShard{ShardName(shard, count), {}});
    const uint64_t target = total / count * (shard + 1);
    const size_t last = tensors.size() - (count - 1 - shard);  // one each for those to come
    do {
      done += tensors[next].elements();
      made.tensors.push_back(tensors[next++]);
    } while (next < last && (shard + 1 == count || done + tensors[next].elements() / 2 <= target));
  }
  return shards;
}

std::string DemoWeightHeader(const DemoShard& shard, DType dtype) {
  SafetensorsHeader header;
  header.metadata["format"] = "pt";  // transformers refuses files without it
  uint64_t offset = 0;
  for (const DemoTensor& tensor : shard.tensors) {
    const uint64_t end = offset + tensor.elements() * DTypeSize(dtype);
    header.entries.push_back({tensor.name, dtype, tensor.shape, offset, end});
    offset = end;
  }
  return SerializeSafetensorsHeader(header);
}

uint64_t DemoDataBytes(const DemoShard& shard, DType dtype) {
  uint64_t elements = 0;
  for (const DemoTensor& tensor : shard.tensors) elements += tensor.elements();
  return elements * DTypeSize(dtype);
}

Status WriteDemoWeights(FileSystem& files, const std::string& directory, const DemoShard& shard,
                        const DemoWeights& weights) {
  const std::string header = DemoWeightHeader(shard, weights.dtype);
  const uint64_t size = header.size() + DemoDataBytes(shard, weights.dtype);
  MERGEPIPE_ASSIGN_OR_RETURN(const auto file, files.Create(JoinPath(directory, shard.file), size));
  MERGEPIPE_RETURN_IF_ERROR(file->WriteAt(0, std::as_bytes(std::span(header))));

  const uint64_t element_size = DTypeSize(weights.dtype);
  std::vector<std::byte> buffer(kBufferBytes);
  uint64_t offset = header.size();
  for (const DemoTensor& tensor : shard.tensors) {
    const DemoValues values(tensor, weights.model, weights.layers, weights.dtype, weights.seed);
    MERGEPIPE_RETURN_IF_ERROR(
        WriteTensor(*file, offset, values, tensor.elements(), element_size, buffer));
    offset += tensor.elements() * element_size;
  }
  MERGEPIPE_RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

}  // namespace mergepipe
