#include "mergepipe/format/output_layout.h"

#include <nlohmann/json.hpp>

#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"
#include "mergepipe/format/safetensors.h"

namespace mergepipe {
namespace {

constexpr const char* kSingleName = "model.safetensors";

Status TooLarge(const std::string& path, std::string what) {
  return Fail(ErrorKind::kBadInput, path, std::move(what), "choose a smaller output dtype");
}

// Lays out the tensors [first, last) of `output` as its file number `number`.
Status LayOutFile(const ModelLayout& base, uint32_t number, size_t first, size_t last,
                  OutputLayout& output) {
  const std::string path = base.FilePath(number);
  SafetensorsHeader header{.metadata = base.files[number].metadata, .entries = {}};
  uint64_t data_size = 0;
  for (size_t i = first; i < last; ++i) {
    const TensorInfo& tensor = output.tensors[i];
    const auto bytes = CheckedTensorBytes(tensor.dtype, tensor.shape);
    const auto end = bytes ? CheckedAdd(data_size, *bytes) : std::nullopt;
    if (!end) return TooLarge(path, "its output is more than 2^64 bytes at " + Quote(tensor.name));
    header.entries.push_back({tensor.name, tensor.dtype, tensor.shape, data_size, *end});
    data_size = *end;
  }
  OutputFile file{.name = base.is_directory ? base.files[number].name : kSingleName,
                  .header = SerializeSafetensorsHeader(header)};
  if (file.header.size() - 8 > kMaxHeaderBytes) {
    return TooLarge(
        path, "its output's header is longer than " + std::to_string(kMaxHeaderBytes) + " bytes");
  }
  const auto size = CheckedAdd(file.header.size(), data_size);
  if (!size) return TooLarge(path, "its output is more than 2^64 bytes");
  file.size = *size;
  for (size_t i = first; i < last; ++i) {
    output.tensors[i].offset = file.header.size() + header.entries[i - first].begin;
  }
  output.files.push_back(std::move(file));
  return {};
}

}  // namespace

uint64_t OutputLayout::WeightBytes() const {
  Bytes sum;
  for (const OutputFile& file : files) sum += Bytes(file.size - file.data_begin());
  return sum.count();
}

Result<OutputLayout> ComputeOutputLayout(const ModelLayout& base,
                                         std::optional<DType> float_dtype) {
  if (float_dtype && !IsFloat(*float_dtype)) {
    return Fail(ErrorKind::kInternal, base.path,
                "output dtype " + std::string(DTypeName(*float_dtype)) + " is no float type");
  }
  OutputLayout output{.files = {}, .tensors = base.tensors, .index_name = base.index_name};
  for (TensorInfo& tensor : output.tensors) {
    if (float_dtype && IsFloat(tensor.dtype)) tensor.dtype = *float_dtype;
  }
  size_t first = 0;
  for (uint32_t number = 0; number < base.files.size(); ++number) {
    size_t last = first;
    while (last < output.tensors.size() && output.tensors[last].file == number) ++last;
    MERGEPIPE_RETURN_IF_ERROR(LayOutFile(base, number, first, last, output));
    first = last;
  }
  return output;
}

Result<std::string> IndexText(const OutputLayout& output, std::string_view base_index,
                              const std::string& subject) {
  // Not part of a tree: the base's weight map may have 100,000 entries that are not needed.
  const auto skip_weight_map = [](int depth, nlohmann::json::parse_event_t event,
                                  const nlohmann::json& value) {
    return depth != 1 || event != nlohmann::json::parse_event_t::key || value != "weight_map";
  };
  const auto base = nlohmann::json::parse(base_index, skip_weight_map, /*allow_exceptions=*/false);
  if (!base.is_object()) {
    return Fail(ErrorKind::kBadInput, subject, "not a JSON object",
                "the index is damaged; fetch it again");
  }
  nlohmann::json index = {{"metadata", nlohmann::json::object()},
                          {"weight_map", nlohmann::json::object()}};
  if (const auto metadata = base.find("metadata");
      metadata != base.end() && metadata->is_object()) {
    index["metadata"] = *metadata;
  }
  index["metadata"]["total_size"] = output.WeightBytes();
  nlohmann::json& weight_map = index["weight_map"];
  for (const TensorInfo& tensor : output.tensors) {
    weight_map[tensor.name] = output.files[tensor.file].name;
  }
  return index.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace mergepipe
