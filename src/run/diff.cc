#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "mergepipe/base/text.h"
#include "mergepipe/catalog/catalog.h"
#include "mergepipe/format/model.h"
#include "mergepipe/kernels/convert.h"
#include "mergepipe/kernels/parallel.h"
#include "mergepipe/manifest/manifest_codec.h"
#include "mergepipe/manifest/record_diff.h"
#include "mergepipe/manifest/run_folder.h"
#include "mergepipe/run/records.h"

namespace mergepipe {
namespace {

// Elements compared at a time; sums are kept by piece and added in order, so they do not depend on
// the threads.
constexpr uint64_t kPiece = 1 << 20;
constexpr size_t kTile = 4096;

struct Piece {
  double squares = 0;
  double reference_squares = 0;
  double max_abs = 0;
  uint64_t equal = 0;
};

// A model whose files are open.
struct OpenModel {
  ModelLayout layout;
  std::vector<std::unique_ptr<ReadableFile>> files;

  static Result<OpenModel> Open(FileSystem& file_system, const std::string& path) {
    OpenModel model;
    MERGEPIPE_ASSIGN_OR_RETURN(model.layout, ReadModel(file_system, path));
    for (uint32_t i = 0; i < model.layout.files.size(); ++i) {
      MERGEPIPE_ASSIGN_OR_RETURN(auto file, file_system.OpenForReading(model.layout.FilePath(i)));
      model.files.push_back(std::move(file));
    }
    return model;
  }

  Status Read(const TensorInfo& tensor, uint64_t first, uint64_t count,
              std::vector<std::byte>& out) {
    const uint64_t size = DTypeSize(tensor.dtype);
    out.resize(count * size);
    return files[tensor.file]->ReadAt(tensor.offset + first * size, out);
  }
};

// The value as float64; F64 keeps its own precision.
void ToDouble(DType dtype, std::span<const std::byte> stored, std::span<double> out) {
  if (dtype == DType::kF64) {
    std::memcpy(out.data(), stored.data(), stored.size());
    return;
  }
  std::array<float, kTile> values;
  ToFloat(dtype, stored, std::span(values.data(), out.size()));
  std::copy_n(values.begin(), out.size(), out.begin());
}

uint64_t CountEqualBits(std::span<const std::byte> a, std::span<const std::byte> b, uint64_t size) {
  uint64_t equal = 0;
  for (size_t at = 0; at < a.size(); at += size)
    equal += std::memcmp(&a[at], &b[at], size) == 0 ? 1 : 0;
  return equal;
}

Piece CompareValues(const TensorInfo& a, const TensorInfo& b, std::span<const std::byte> bytes_a,
                    std::span<const std::byte> bytes_b, uint64_t count) {
  Piece piece;
  const uint64_t size_a = DTypeSize(a.dtype);
  const uint64_t size_b = DTypeSize(b.dtype);
  std::array<double, kTile> values_a;
  std::array<double, kTile> values_b;
  for (uint64_t at = 0; at < count; at += kTile) {
    const uint64_t n = std::min<uint64_t>(kTile, count - at);
    ToDouble(a.dtype, bytes_a.subspan(at * size_a, n * size_a), std::span(values_a.data(), n));
    ToDouble(b.dtype, bytes_b.subspan(at * size_b, n * size_b), std::span(values_b.data(), n));
    for (uint64_t i = 0; i < n; ++i) {
      const double difference = values_b[i] - values_a[i];
      piece.squares += difference * difference;
      piece.reference_squares += values_a[i] * values_a[i];
      piece.max_abs = std::max(piece.max_abs, std::abs(difference));
      if (a.dtype != b.dtype) piece.equal += values_a[i] == values_b[i] ? 1 : 0;
    }
  }
  if (a.dtype == b.dtype) piece.equal = CountEqualBits(bytes_a, bytes_b, size_a);
  return piece;
}

Result<TensorDistance> CompareTensor(OpenModel& model_a, const TensorInfo& a, OpenModel& model_b,
                                     const TensorInfo& b, int threads) {
  TensorDistance distance;
  distance.name = a.name;
  if (a.shape != b.shape) {
    distance.note = "shapes differ: " + FormatShape(a.shape) + " and " + FormatShape(b.shape);
    return distance;
  }
  const bool floats = IsFloat(a.dtype) && IsFloat(b.dtype);
  if (!floats && a.dtype != b.dtype) {
    distance.note = "dtypes differ: " + std::string(DTypeName(a.dtype)) + " and " +
                    std::string(DTypeName(b.dtype));
    return distance;
  }
  distance.elements = a.elements();
  std::vector<Piece> pieces(CeilDivide(distance.elements, kPiece));
  MERGEPIPE_RETURN_IF_ERROR(ParallelFor(pieces.size(), threads, [&](uint64_t i) -> Status {
    static thread_local std::vector<std::byte> bytes_a;
    static thread_local std::vector<std::byte> bytes_b;
    const uint64_t count = std::min(kPiece, distance.elements - i * kPiece);
    MERGEPIPE_RETURN_IF_ERROR(model_a.Read(a, i * kPiece, count, bytes_a));
    MERGEPIPE_RETURN_IF_ERROR(model_b.Read(b, i * kPiece, count, bytes_b));
    if (floats) {
      pieces[i] = CompareValues(a, b, bytes_a, bytes_b, count);
    } else {
      pieces[i].equal = CountEqualBits(bytes_a, bytes_b, DTypeSize(a.dtype));
    }
    return {};
  }));
  double squares = 0;
  double reference_squares = 0;
  for (const Piece& piece : pieces) {
    squares += piece.squares;
    reference_squares += piece.reference_squares;
    distance.max_abs = std::max(distance.max_abs, piece.max_abs);
    distance.equal_elements += piece.equal;
  }
  distance.l2 = std::sqrt(squares);
  distance.reference_l2 = std::sqrt(reference_squares);
  return distance;
}

void AddToTotal(const TensorDistance& distance, TensorDistance& total) {
  total.elements += distance.elements;
  total.equal_elements += distance.equal_elements;
  total.l2 = std::hypot(total.l2, distance.l2);
  total.reference_l2 = std::hypot(total.reference_l2, distance.reference_l2);
  total.max_abs = std::max(total.max_abs, distance.max_abs);
}

// The text of a record: a file, or the file `name` of a run's folder.
Result<std::string> ReadRecordText(FileSystem& files, const std::string& path) {
  return ReadSmallFile(files, path, kMaxRecordBytes);
}

bool IsFile(FileSystem& files, const std::string& path) {
  const auto info = files.Stat(path);
  return info && info->kind == FileKind::kRegular;
}

}  // namespace

bool CheckpointDistance::Equal() const {
  return std::all_of(tensors.begin(), tensors.end(), [](const TensorDistance& tensor) {
    return tensor.note.empty() && tensor.equal_elements == tensor.elements;
  });
}

Result<CheckpointDistance> DiffCheckpoints(FileSystem& files, const std::string& a,
                                           const std::string& b, int threads) {
  MERGEPIPE_ASSIGN_OR_RETURN(OpenModel model_a, OpenModel::Open(files, a));
  MERGEPIPE_ASSIGN_OR_RETURN(OpenModel model_b, OpenModel::Open(files, b));
  std::unordered_map<std::string, const TensorInfo*> rest;
  for (const TensorInfo& tensor : model_b.layout.tensors) rest.emplace(tensor.name, &tensor);
  CheckpointDistance result;
  result.total.name = "total";
  for (const TensorInfo& tensor : model_a.layout.tensors) {
    const auto other = rest.find(tensor.name);
    if (other == rest.end()) {
      TensorDistance only{};
      only.name = tensor.name;
      only.note = "only in A";
      result.tensors.push_back(std::move(only));
      continue;
    }
    MERGEPIPE_ASSIGN_OR_RETURN(TensorDistance distance,
                               CompareTensor(model_a, tensor, model_b, *other->second, threads));
    if (distance.note.empty()) AddToTotal(distance, result.total);
    result.tensors.push_back(std::move(distance));
    rest.erase(other);
  }
  for (const TensorInfo& tensor : model_b.layout.tensors) {
    if (!rest.contains(tensor.name)) continue;
    TensorDistance only{};
    only.name = tensor.name;
    only.note = "only in B";
    result.tensors.push_back(std::move(only));
  }
  return result;
}

Result<std::vector<std::string>> DiffRecords(FileSystem& files, const RecordPlaces& places,
                                             const std::string& a, const std::string& b) {
  if (IsFile(files, a) && IsFile(files, b)) {
    MERGEPIPE_ASSIGN_OR_RETURN(const std::string text_a, ReadRecordText(files, a));
    MERGEPIPE_ASSIGN_OR_RETURN(const std::string text_b, ReadRecordText(files, b));
    return CompareRecords(text_a, a, text_b, b);
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const StoredRun run_a, LoadRun(files, places, a));
  MERGEPIPE_ASSIGN_OR_RETURN(const StoredRun run_b, LoadRun(files, places, b));
  MERGEPIPE_ASSIGN_OR_RETURN(
      auto lines, CompareRecords(run_a.plan_text, "plan of " + a, run_b.plan_text, "plan of " + b));
  MERGEPIPE_ASSIGN_OR_RETURN(
      const auto more, CompareRecords(run_a.manifest_text, "manifest of " + a, run_b.manifest_text,
                                      "manifest of " + b));
  lines.insert(lines.end(), more.begin(), more.end());
  return lines;
}

Result<std::string> CheckpointPath(FileSystem& files, const std::string& catalog,
                                   const std::string& argument) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool on_disk, files.Exists(argument));
  if (on_disk) return argument;
  MERGEPIPE_ASSIGN_OR_RETURN(const auto opened, Catalog::OpenIfExists(catalog));
  if (!opened) return argument;
  MERGEPIPE_ASSIGN_OR_RETURN(const auto model, opened->FindModel(argument));
  return model ? model->layout.path : argument;
}

bool IsCheckpoint(FileSystem& files, const std::string& argument) {
  const auto info = files.Stat(argument);
  if (!info) return false;
  if (info->kind == FileKind::kRegular) return !argument.ends_with(".json");
  const auto plan = files.Exists(JoinPath(argument, kPlanName));
  return info->kind == FileKind::kDirectory && plan && !*plan;
}

}  // namespace mergepipe
