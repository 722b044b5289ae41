#include "mergepipe/format/safetensors.h"

#include <algorithm>
#include <cassert>
#include <tuple>

#include "format/capped_problems.h"
#include "format/json_visitor.h"
#include "mergepipe/base/checked.h"
#include "mergepipe/base/little_endian.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr const char* kDamaged = "the file is damaged; fetch it again";
constexpr const char* kTruncated = "the file is truncated or damaged; fetch it again";

// "FP8" for F8_E4M3 and its kin, "FP4", "FP6"; empty for others.
std::string_view QuantisedFamily(std::string_view dtype) {
  if (dtype.starts_with("F8")) return "FP8";
  if (dtype.starts_with("F4")) return "FP4";
  if (dtype.starts_with("F6")) return "FP6";
  return {};
}

// Collects the entries of a header, and what is wrong with each on its own.
class HeaderReader : public JsonVisitor {
 public:
  explicit HeaderReader(CappedProblems& problems) : problems_(problems) {}

  void Value(const JsonPath& path, const JsonValue& value) override {
    if (path.size() == 1) StartMember(path[0], value);
    if (path.size() == 2 && member_ == Member::kMetadata) AddMetadata(path[1], value);
    if (path.size() == 2 && member_ == Member::kTensor) StartField(path[1], value);
    if (path.size() == 3 && member_ == Member::kTensor) AddNumber(value);
  }

  void End(const JsonPath& path) override {
    if (path.size() == 2) list_ = nullptr;
    if (path.size() == 1) {
      if (member_ == Member::kTensor) FinishTensor();
      member_ = Member::kNone;
    }
  }

  // Sorts the entries, and finds what is wrong with them together.
  void Finish(uint64_t data_bytes);

  SafetensorsHeader& header() { return header_; }

 private:
  enum class Member { kNone, kMetadata, kTensor };

  struct RefusedDType {
    std::string first_tensor;
    uint64_t tensors = 0;
  };

  void StartMember(const std::string& name, const JsonValue& value);
  void AddMetadata(const std::string& key, const JsonValue& value);
  void StartField(const std::string& field, const JsonValue& value);
  void StartList(const std::string& field, const JsonValue& value, bool& seen,
                 std::vector<uint64_t>& list);
  void SetDType(const JsonValue& value);
  void AddNumber(const JsonValue& value);
  void FinishTensor();
  bool CheckFields();
  void CheckSize();
  void ReportRefusedDTypes();
  void CheckContiguous(uint64_t data_bytes);

  void TensorProblem(std::string what, std::string remedy = kDamaged) {
    problems_.AddTensor(entry_.name, std::move(what), std::move(remedy));
    sound_ = false;
  }

  CappedProblems& problems_;
  SafetensorsHeader header_;
  std::map<std::string, RefusedDType> refused_;
  bool complete_ = true;  // every tensor has usable offsets, so that they can be compared

  // The member being read.
  Member member_ = Member::kNone;
  SafetensorsEntry entry_;
  std::vector<uint64_t> offsets_;
  std::vector<uint64_t>* list_ = nullptr;  // the shape or the offsets, while they are being read
  bool has_dtype_ = false;
  bool known_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  bool sound_ = true;
};

void HeaderReader::StartMember(const std::string& name, const JsonValue& value) {
  const bool is_object = value.kind == JsonKind::kObject;
  if (name == kMetadataKey) {
    if (!is_object) problems_.Add("__metadata__ is not an object", kDamaged);
    member_ = is_object ? Member::kMetadata : Member::kNone;
    return;
  }
  entry_ = SafetensorsEntry();
  entry_.name = name;
  offsets_.clear();
  list_ = nullptr;
  has_dtype_ = known_dtype_ = has_shape_ = has_offsets_ = false;
  sound_ = true;
  member_ = is_object ? Member::kTensor : Member::kNone;
  if (!is_object) {
    TensorProblem("its entry in the header is not an object");
    complete_ = false;
  }
}

void HeaderReader::AddMetadata(const std::string& key, const JsonValue& value) {
  if (value.kind == JsonKind::kString) {
    header_.metadata.emplace(key, value.text);
  } else {
    problems_.Add("__metadata__ entry " + QuoteShort(key) + " is not a string", kDamaged);
  }
}

void HeaderReader::StartField(const std::string& field, const JsonValue& value) {
  if (field == "dtype") {
    SetDType(value);
  } else if (field == "shape") {
    StartList(field, value, has_shape_, entry_.shape);
  } else if (field == "data_offsets") {
    StartList(field, value, has_offsets_, offsets_);
  } else {
    TensorProblem("unknown field " + QuoteShort(field));
  }
}

void HeaderReader::StartList(const std::string& field, const JsonValue& value, bool& seen,
                             std::vector<uint64_t>& list) {
  seen = true;
  if (value.kind == JsonKind::kArray) {
    list_ = &list;
  } else {
    TensorProblem(field + " is not a list");
  }
}

void HeaderReader::SetDType(const JsonValue& value) {
  has_dtype_ = true;
  if (value.kind != JsonKind::kString) return TensorProblem("dtype is not a string");
  if (const auto dtype = ParseDType(value.text)) {
    entry_.dtype = *dtype;
    known_dtype_ = true;
    return;
  }
  RefusedDType& refused = refused_[std::string(value.text)];
  if (refused.tensors++ == 0) refused.first_tensor = entry_.name;
}

void HeaderReader::AddNumber(const JsonValue& value) {
  if (list_ == nullptr) return;
  const bool is_shape = list_ == &entry_.shape;
  if (value.kind != JsonKind::kUnsigned) {
    TensorProblem(std::string(is_shape ? "shape" : "data_offsets") +
                  " holds something else than non-negative integers");
  } else if (is_shape && list_->size() == kMaxRank) {
    TensorProblem("more than " + std::to_string(kMaxRank) + " dimensions");
  } else if (!is_shape && list_->size() == 2) {
    TensorProblem("data_offsets holds more than two numbers");
  } else {
    list_->push_back(value.number);
    return;
  }
  list_ = nullptr;  // one problem a list
}

bool HeaderReader::CheckFields() {
  if (entry_.name.empty()) TensorProblem("a tensor has an empty name");
  if (!has_dtype_) TensorProblem("no dtype");
  if (!has_shape_) TensorProblem("no shape");
  if (!has_offsets_) TensorProblem("no data_offsets");
  if (!sound_) return false;
  if (offsets_.size() != 2) TensorProblem("data_offsets is not a pair of numbers");
  return sound_;
}

void HeaderReader::CheckSize() {
  if (!known_dtype_) return;
  const auto bytes = CheckedTensorBytes(entry_.dtype, entry_.shape);
  const std::string what = std::string(DTypeName(entry_.dtype)) + " " + FormatShape(entry_.shape);
  if (!bytes) {
    TensorProblem(what + " is more than 2^64 bytes");
  } else if (*bytes != entry_.end - entry_.begin) {
    TensorProblem(what + " takes " + std::to_string(*bytes) + " bytes, but its data_offsets span " +
                  std::to_string(entry_.end - entry_.begin));
  }
}

void HeaderReader::FinishTensor() {
  if (!CheckFields()) {
    complete_ = false;
    return;
  }
  entry_.begin = offsets_[0];
  entry_.end = offsets_[1];
  if (entry_.begin > entry_.end) {
    TensorProblem("data_offsets end before they begin");
    complete_ = false;
    return;
  }
  CheckSize();
  header_.entries.push_back(std::move(entry_));
}

// One line for each dtype: thousands of tensors may have it.
void HeaderReader::ReportRefusedDTypes() {
  for (const auto& [dtype, refused] : refused_) {
    const std::string_view family = QuantisedFamily(dtype);
    std::string what = "dtype " + QuoteShort(dtype);
    what += family.empty() ? " is not supported"
                           : " is " + std::string(family) + ": quantised, and not supported";
    if (refused.tensors > 1) what += " (" + std::to_string(refused.tensors) + " tensors have it)";
    problems_.AddTensor(refused.first_tensor, std::move(what), "convert the model to bf16");
  }
}

void HeaderReader::Finish(uint64_t data_bytes) {
  ReportRefusedDTypes();
  auto& entries = header_.entries;
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  if (complete_) CheckContiguous(data_bytes);
}

void HeaderReader::CheckContiguous(uint64_t data_bytes) {
  uint64_t next = 0;
  for (const SafetensorsEntry& entry : header_.entries) {
    if (entry.begin > next) {
      problems_.AddTensor(entry.name,
                          "a hole of " + std::to_string(entry.begin - next) +
                              " bytes lies before its data (at offset " + std::to_string(next) +
                              ")",
                          kDamaged);
    } else if (entry.begin < next) {
      problems_.AddTensor(
          entry.name,
          "its data at offset " + std::to_string(entry.begin) + " overlap those of another tensor",
          kDamaged);
    }
    next = std::max(next, entry.end);
  }
  if (next > data_bytes) {
    problems_.Add("its tensors take " + std::to_string(next) + " bytes, but it holds only " +
                      std::to_string(data_bytes),
                  kTruncated);
  } else if (next < data_bytes) {
    problems_.Add(std::to_string(data_bytes - next) + " bytes follow the last tensor's data",
                  kDamaged);
  }
}

}  // namespace

std::optional<uint64_t> CheckedTensorBytes(DType dtype, std::span<const uint64_t> shape) {
  const auto elements = CheckedProduct(shape);
  if (!elements) return std::nullopt;
  return CheckedMultiply(*elements, DTypeSize(dtype));
}

Result<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json, uint64_t data_bytes,
                                                 const std::string& subject) {
  CappedProblems problems(subject);
  HeaderReader reader(problems);
  if (json.size() > kMaxHeaderBytes) {
    problems.Add("header of " + std::to_string(json.size()) +
                     " bytes is longer than the limit of " + std::to_string(kMaxHeaderBytes),
                 kDamaged);
  } else if (json.empty() || json.front() != '{') {
    problems.Add("the header does not start with '{'",
                 "the file is no safetensors file, or damaged");
  } else if (const auto wrong = VisitJson(json, reader)) {
    problems.Add("header: " + *wrong, kDamaged);
  } else {
    reader.Finish(data_bytes);
  }
  MERGEPIPE_RETURN_IF_ERROR(problems.ToStatus());
  return std::move(reader.header());
}

std::string SerializeSafetensorsHeader(const SafetensorsHeader& header) {
  std::string json = "{";
  if (!header.metadata.empty()) {
    json += JsonQuote(kMetadataKey) + ":{";
    for (const auto& [key, value] : header.metadata) {
      if (json.back() != '{') json += ',';
      json += JsonQuote(key) + ':' + JsonQuote(value);
    }
    json += '}';
  }
  [[maybe_unused]] uint64_t next = 0;
  for (const SafetensorsEntry& entry : header.entries) {
    assert(entry.begin == next && entry.end >= entry.begin);
    next = entry.end;
    if (json.size() > 1) json += ',';
    json += JsonQuote(entry.name) + ":{\"dtype\":\"";
    json += DTypeName(entry.dtype);
    json += "\",\"shape\":[";
    for (const uint64_t size : entry.shape) {
      if (json.back() != '[') json += ',';
      json += std::to_string(size);
    }
    json += "],\"data_offsets\":[" + std::to_string(entry.begin) + ',' + std::to_string(entry.end) +
            "]}";
  }
  json += '}';
  json.resize(CeilDivide(8 + json.size(), kDataAlignment) * kDataAlignment - 8, ' ');

  std::string bytes;
  bytes.reserve(8 + json.size());
  AppendLittleEndian(json.size(), bytes);
  return bytes + json;
}

}  // namespace mergepipe
