#include "catalog/model_rows.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "catalog/checksum.h"
#include "catalog/row_reader.h"
#include "mergepipe/base/checked.h"
#include "mergepipe/base/dtype.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

std::string ShapeToText(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t size : shape) {
    if (!text.empty()) text += ',';
    text += std::to_string(size);
  }
  return text;
}

std::optional<std::vector<uint64_t>> ShapeFromText(std::string_view text) {
  std::vector<uint64_t> shape;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    const auto [next, error] = std::from_chars(at, end, shape.emplace_back());
    if (error != std::errc()) return std::nullopt;
    if (next == end) return shape;
    if (*next != ',' || next + 1 == end) return std::nullopt;
    at = next + 1;
  }
  return shape;
}

bool FitsInteger(uint64_t value) { return Narrow<int64_t>(value).has_value(); }

/// What is wrong with a tensor of a model with `files` files; empty if nothing is.
std::string TensorProblem(const TensorInfo& tensor, size_t files) {
  const auto elements = CheckedProduct(tensor.shape);
  const auto bytes = elements ? CheckedMultiply(*elements, DTypeSize(tensor.dtype)) : std::nullopt;
  const auto end = bytes ? CheckedAdd(tensor.offset, *bytes) : std::nullopt;
  if (!end || !FitsInteger(*end)) return "the shape " + FormatShape(tensor.shape) + " is too large";
  if (tensor.file >= files) return "there is no file " + std::to_string(tensor.file);
  return {};
}

/// The rule for what is written and for what was read.
std::string ModelProblem(const ModelRecord& model) {
  const ModelLayout& layout = model.layout;
  for (const ModelFile& file : layout.files) {
    if (!FitsInteger(file.info.size) || !FitsInteger(file.data_begin)) {
      return "model " + Quote(model.id) + ", file " + Quote(file.name) + ": a size is too large";
    }
  }
  for (const TensorInfo& tensor : layout.tensors) {
    const std::string problem = TensorProblem(tensor, layout.files.size());
    if (!problem.empty()) {
      return "model " + Quote(model.id) + ", tensor " + Quote(tensor.name) + ": " + problem;
    }
  }
  return {};
}

void AddFile(Checksum& sum, const ModelFile& file) {
  sum << file.name << static_cast<uint64_t>(file.info.kind) << file.info.size
      << static_cast<uint64_t>(file.info.mtime_ns) << file.info.inode << file.info.device
      << file.data_begin << file.header_hash << uint64_t{file.metadata.size()};
  for (const auto& [name, value] : file.metadata) sum << name << value;
}

void AddTensor(Checksum& sum, const TensorInfo& tensor) {
  sum << tensor.name << static_cast<uint64_t>(tensor.dtype) << uint64_t{tensor.shape.size()};
  for (const uint64_t size : tensor.shape) sum << size;
  sum << uint64_t{tensor.file} << tensor.offset;
}

std::string ModelChecksum(const ModelRecord& model) {
  const ModelLayout& layout = model.layout;
  Checksum sum;
  sum << model.id << layout.path << layout.directory << uint64_t{layout.is_directory}
      << uint64_t{layout.index_name.has_value()} << layout.index_name.value_or("")
      << uint64_t{layout.config.present} << uint64_t{layout.config.tie_word_embeddings}
      << layout.config.quantization << model.fingerprint << model.registered_at
      << uint64_t{layout.files.size()};
  for (const ModelFile& file : layout.files) AddFile(sum, file);
  sum << uint64_t{layout.tensors.size()};
  for (const TensorInfo& tensor : layout.tensors) AddTensor(sum, tensor);
  return sum.ToHex();
}

Error WrongChecksum(const Connection& connection, const std::string& model) {
  return connection.Damaged("the checksum of model " + Quote(model) + " is wrong");
}

/// The `models` row, and what is needed to read the others.
struct ModelRow {
  int64_t key = 0;
  ModelRecord record;
  std::string checksum;
};

Result<ModelRow> ReadModelRow(const Connection& connection, const Statement& statement,
                              const std::string& place) {
  ModelRow model;
  ModelLayout& layout = model.record.layout;
  RowReader row(connection, statement, place);
  model.key = row.Signed();
  model.record.id = row.Text();
  layout.path = row.Text();
  layout.directory = row.Text();
  layout.is_directory = row.Flag();
  layout.index_name = row.OptionalText();
  layout.config.present = row.Flag();
  layout.config.tie_word_embeddings = row.Flag();
  layout.config.quantization = row.Text();
  model.record.fingerprint = row.Hash();
  model.record.registered_at = row.Text();
  model.checksum = row.Text();
  MERGEPIPE_RETURN_IF_ERROR(row.status());
  return model;
}

void RequirePosition(RowReader& row, size_t expected) {
  if (row.Unsigned() != expected) row.Reject("position: rows are missing");
}

FileKind ReadFileKind(RowReader& row) {
  switch (row.Unsigned()) {
    case 0: return FileKind::kRegular;
    case 1: return FileKind::kDirectory;
    case 2: return FileKind::kOther;
    default: row.Reject("kind of file"); return FileKind::kOther;
  }
}

int64_t FileKindNumber(FileKind kind) {
  switch (kind) {
    case FileKind::kRegular: return 0;
    case FileKind::kDirectory: return 1;
    case FileKind::kOther: return 2;
  }
  return 2;
}

Status ReadFiles(Connection& connection, const ModelRow& model, std::vector<ModelFile>& files) {
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement rows, connection.Prepare("SELECT position, name, kind, size, mtime_ns, inode, "
                                         "device, data_begin, header_hash FROM files "
                                         "WHERE model = ?1 ORDER BY position"));
  rows.Bind(model.key);
  for (;;) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more) return {};
    ModelFile file;
    RowReader row(connection, rows,
                  "model " + Quote(model.record.id) + ", file " + std::to_string(files.size()));
    RequirePosition(row, files.size());
    file.name = row.Text();
    file.info.kind = ReadFileKind(row);
    file.info.size = row.Unsigned();
    file.info.mtime_ns = row.Signed();
    file.info.inode = static_cast<uint64_t>(row.Signed());
    file.info.device = static_cast<uint64_t>(row.Signed());
    file.data_begin = row.Unsigned();
    file.header_hash = row.Hash();
    MERGEPIPE_RETURN_IF_ERROR(row.status());
    files.push_back(std::move(file));
  }
}

Status ReadMetadata(Connection& connection, const ModelRow& model, std::vector<ModelFile>& files) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows,
                             connection.Prepare("SELECT file, name, value FROM file_metadata "
                                                "WHERE model = ?1 ORDER BY file, name"));
  rows.Bind(model.key);
  for (;;) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more) return {};
    RowReader row(connection, rows, "model " + Quote(model.record.id) + ", metadata");
    const uint64_t file = row.Unsigned();
    if (file >= files.size()) row.Reject("file");
    std::string name = row.Text();
    std::string value = row.Text();
    MERGEPIPE_RETURN_IF_ERROR(row.status());
    files[file].metadata.insert_or_assign(std::move(name), std::move(value));
  }
}

TensorInfo ReadTensor(RowReader& row) {
  TensorInfo tensor;
  tensor.name = row.Text();
  const auto dtype = ParseDType(row.Text());
  if (!dtype) row.Reject("dtype");
  tensor.dtype = dtype.value_or(DType::kF32);
  auto shape = ShapeFromText(row.Text());
  if (!shape) row.Reject("shape");
  tensor.shape = std::move(shape).value_or(std::vector<uint64_t>{});
  const auto file = Narrow<uint32_t>(row.Unsigned());
  if (!file) row.Reject("file");
  tensor.file = file.value_or(0);
  tensor.offset = row.Unsigned();
  return tensor;
}

Status ReadTensors(Connection& connection, const ModelRow& model,
                   std::vector<TensorInfo>& tensors) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows,
                             connection.Prepare("SELECT position, name, dtype, shape, file, offset "
                                                "FROM tensors WHERE model = ?1 ORDER BY position"));
  rows.Bind(model.key);
  for (;;) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more) return {};
    RowReader row(connection, rows,
                  "model " + Quote(model.record.id) + ", tensor " + std::to_string(tensors.size()));
    RequirePosition(row, tensors.size());
    TensorInfo tensor = ReadTensor(row);
    MERGEPIPE_RETURN_IF_ERROR(row.status());
    tensors.push_back(std::move(tensor));
  }
}

/// The model that `model` is to replace; nothing if there is none, or a damaged one: that can be
/// put again, but what is known of its blocks may be of other weights.
Result<std::optional<ModelRecord>> ReadReplaced(Connection& connection, const ModelRecord& model) {
  auto old = ReadModelRows(connection, ModelKey::kId, model.id);
  if (!old && old.error().kind() == ErrorKind::kBadInput) return std::nullopt;
  return old;
}

/// A key after all others: of two models with one path, the one put last counts.
Result<int64_t> NextKey(Connection& connection) {
  return connection.QueryInteger("SELECT coalesce(max(key), 0) + 1 FROM models");
}

/// Gives the sets of the model with that id to the one that gets `key`, so that they outlive it.
Status MoveStatistics(Connection& connection, const std::string& id, int64_t key) {
  for (const char* role : {"base", "expert"}) {
    MERGEPIPE_ASSIGN_OR_RETURN(
        Statement move,
        connection.Prepare(std::string("UPDATE statistics_sets SET ") + role + " = ?1 WHERE " +
                           role + " = (SELECT key FROM models WHERE id = ?2)"));
    move.Bind(key, id);
    MERGEPIPE_RETURN_IF_ERROR(move.Run());
  }
  return {};
}

Result<int64_t> WriteModelRow(Connection& connection, const ModelRecord& model) {
  const ModelLayout& layout = model.layout;
  MERGEPIPE_ASSIGN_OR_RETURN(const auto old, ReadReplaced(connection, model));
  if (old && old->layout.path != layout.path) {
    return Fail(ErrorKind::kBadInput, "model " + Quote(model.id),
                "was registered for " + Quote(old->layout.path) + " meanwhile",
                "run the same command again");
  }
  MERGEPIPE_ASSIGN_OR_RETURN(const int64_t key, NextKey(connection));
  if (old && SameWeights(*old, model)) {
    MERGEPIPE_RETURN_IF_ERROR(MoveStatistics(connection, model.id, key));
  }
  MERGEPIPE_ASSIGN_OR_RETURN(Statement remove,
                             connection.Prepare("DELETE FROM models WHERE id = ?1"));
  remove.Bind(model.id);
  MERGEPIPE_RETURN_IF_ERROR(remove.Run());
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement insert,
      connection.Prepare("INSERT INTO models (key, id, path, directory, is_directory, index_name, "
                         "config_present, tie_word_embeddings, quantization, fingerprint, "
                         "registered_at, checksum) "
                         "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"));
  insert.Bind(key, model.id, layout.path, layout.directory, int64_t{layout.is_directory},
              layout.index_name, int64_t{layout.config.present},
              int64_t{layout.config.tie_word_embeddings}, layout.config.quantization,
              model.fingerprint.ToHex(), model.registered_at, ModelChecksum(model));
  MERGEPIPE_RETURN_IF_ERROR(insert.Run());
  return key;
}

Status WriteFiles(Connection& connection, int64_t key, const std::vector<ModelFile>& files) {
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement insert,
      connection.Prepare("INSERT INTO files (model, position, name, kind, size, mtime_ns, inode, "
                         "device, data_begin, header_hash) "
                         "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"));
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement insert_metadata,
      connection.Prepare(
          "INSERT INTO file_metadata (model, file, name, value) VALUES (?1, ?2, ?3, ?4)"));
  int64_t position = 0;
  for (const ModelFile& file : files) {
    insert.Bind(key, position, file.name, FileKindNumber(file.info.kind),
                static_cast<int64_t>(file.info.size), file.info.mtime_ns,
                static_cast<int64_t>(file.info.inode), static_cast<int64_t>(file.info.device),
                static_cast<int64_t>(file.data_begin), file.header_hash.ToHex());
    MERGEPIPE_RETURN_IF_ERROR(insert.Run());
    for (const auto& [name, value] : file.metadata) {
      insert_metadata.Bind(key, position, name, value);
      MERGEPIPE_RETURN_IF_ERROR(insert_metadata.Run());
    }
    ++position;
  }
  return {};
}

Status WriteTensors(Connection& connection, int64_t key, const std::vector<TensorInfo>& tensors) {
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement insert,
      connection.Prepare("INSERT INTO tensors (model, position, name, dtype, shape, file, offset) "
                         "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"));
  int64_t position = 0;
  for (const TensorInfo& tensor : tensors) {
    insert.Bind(key, position++, tensor.name, DTypeName(tensor.dtype), ShapeToText(tensor.shape),
                int64_t{tensor.file}, static_cast<int64_t>(tensor.offset));
    MERGEPIPE_RETURN_IF_ERROR(insert.Run());
  }
  return {};
}

Result<Statement> SelectModel(Connection& connection, std::string_view condition) {
  constexpr std::string_view kColumns =
      "SELECT key, id, path, directory, is_directory, index_name, config_present, "
      "tie_word_embeddings, quantization, fingerprint, registered_at, checksum FROM models ";
  return connection.Prepare(std::string(kColumns).append(condition));
}

/// The model in the first row. `value` names it in errors.
Result<std::optional<ModelRecord>> ReadSelected(Connection& connection, Statement& rows,
                                                const std::string& value) {
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, rows.Step());
  if (!found) return std::nullopt;
  MERGEPIPE_ASSIGN_OR_RETURN(ModelRow model,
                             ReadModelRow(connection, rows, "model " + Quote(value)));
  ModelLayout& layout = model.record.layout;
  MERGEPIPE_RETURN_IF_ERROR(ReadFiles(connection, model, layout.files));
  MERGEPIPE_RETURN_IF_ERROR(ReadMetadata(connection, model, layout.files));
  MERGEPIPE_RETURN_IF_ERROR(ReadTensors(connection, model, layout.tensors));
  const std::string problem = ModelProblem(model.record);
  if (!problem.empty()) return Fail(connection.Damaged(problem));
  if (ModelChecksum(model.record) != model.checksum) return Fail(WrongChecksum(connection, value));
  return std::optional(std::move(model.record));
}

}  // namespace

Result<std::optional<ModelRecord>> ReadModelRows(Connection& connection, ModelKey key,
                                                 const std::string& value) {
  const bool by_id = key == ModelKey::kId;
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement rows, SelectModel(connection, by_id ? "WHERE id = ?1"
                                                    : "WHERE path = ?1 ORDER BY key DESC LIMIT 1"));
  rows.Bind(value);
  MERGEPIPE_ASSIGN_OR_RETURN(auto model, ReadSelected(connection, rows, value));
  // A damaged index can lead to the row of another model, whole in itself.
  if (model && (by_id ? model->id : model->layout.path) != value) {
    return Fail(WrongChecksum(connection, value));
  }
  return model;
}

Result<std::optional<ModelRecord>> ReadModelAt(Connection& connection, int64_t key) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows, SelectModel(connection, "WHERE key = ?1"));
  rows.Bind(key);
  return ReadSelected(connection, rows, std::to_string(key));
}

bool SameWeights(const ModelRecord& a, const ModelRecord& b) {
  return a.fingerprint == b.fingerprint && LooksUnchanged(a.layout, b.layout);
}

Status WriteModelRows(Connection& connection, const ModelRecord& model) {
  const std::string problem = ModelProblem(model);
  if (!problem.empty()) return Fail(ErrorKind::kInternal, connection.subject(), problem);
  MERGEPIPE_ASSIGN_OR_RETURN(const int64_t key, WriteModelRow(connection, model));
  MERGEPIPE_RETURN_IF_ERROR(WriteFiles(connection, key, model.layout.files));
  return WriteTensors(connection, key, model.layout.tensors);
}

}  // namespace mergepipe
