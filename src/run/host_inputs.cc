#include "run/host_inputs.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "mergepipe/base/text.h"
#include "mergepipe/format/model.h"
#include "mergepipe/io/budget_gate.h"

namespace mergepipe {
namespace {

// Fields of one message, each ended by a zero byte: no path has one.
class Fields {
 public:
  Fields() = default;
  explicit Fields(std::string text) : text_(std::move(text)) {}

  void Add(std::string_view field) { (text_ += field) += '\0'; }
  void Add(uint64_t number) { Add(std::to_string(number)); }
  std::string Next() {
    const size_t end = std::min(text_.find('\0', at_), text_.size());
    std::string field = text_.substr(at_, end - at_);
    at_ = std::min(end + 1, text_.size());
    return field;
  }
  uint64_t NextNumber() {
    const std::string field = Next();
    uint64_t number = 0;
    std::from_chars(field.data(), field.data() + field.size(), number);
    return number;
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
  size_t at_ = 0;
};

std::vector<const ResolvedModel*> ModelsOf(const ResolvedInputs& inputs) {
  std::vector<const ResolvedModel*> models = {&inputs.base};
  for (const ResolvedModel& expert : inputs.experts) models.push_back(&expert);
  return models;
}

// Whether to take fingerprints; then each model: its path, fingerprint and files.
std::string Describe(const ResolvedInputs& inputs, bool fingerprints) {
  Fields fields;
  fields.Add(fingerprints ? 1 : 0);
  const auto models = ModelsOf(inputs);
  fields.Add(models.size());
  for (const ResolvedModel* model : models) {
    const ModelLayout& layout = model->record.layout;
    fields.Add(layout.path);
    fields.Add(model->record.fingerprint.ToHex());
    fields.Add(layout.files.size());
    for (uint32_t i = 0; i < layout.files.size(); ++i) {
      fields.Add(layout.FilePath(i));
      fields.Add(layout.files[i].info.size);
      fields.Add(static_cast<uint64_t>(layout.files[i].info.mtime_ns));
    }
  }
  return fields.Take();
}

constexpr const char* kRemedy =
    "every host must see the same inputs; copies must keep their times (cp -p)";

Status CheckFiles(FileSystem& files, Fields& fields) {
  const uint64_t count = fields.NextNumber();
  for (uint64_t i = 0; i < count; ++i) {
    const std::string path = fields.Next();
    const uint64_t size = fields.NextNumber();
    const uint64_t mtime = fields.NextNumber();
    MERGEPIPE_ASSIGN_OR_RETURN(const FileInfo info, files.Stat(path));
    if (info.size != size || static_cast<uint64_t>(info.mtime_ns) != mtime)
      return Fail(ErrorKind::kBadInput, path,
                  "is not the file that rank 0 sees (size or time differ)", kRemedy);
  }
  return {};
}

Status CheckFingerprint(FileSystem& files, FileSystem& counted, const std::string& path,
                        const std::string& fingerprint) {
  MERGEPIPE_ASSIGN_OR_RETURN(const ModelLayout layout, ReadModel(files, path));
  MERGEPIPE_ASSIGN_OR_RETURN(const Hash128 found, TakeFingerprint(counted, layout));
  if (found.ToHex() == fingerprint) return {};
  return Fail(ErrorKind::kBadInput, path, "is not the model that rank 0 sees (fingerprints differ)",
              kRemedy);
}

// Returns the expert bytes that were read.
Result<uint64_t> CheckHere(FileSystem& files, const std::string& description) {
  Fields fields(description);
  const bool fingerprints = fields.NextNumber() == 1;
  const uint64_t models = fields.NextNumber();
  BudgetShare share(Bytes::Unlimited());  // rank 0 has made sure that there is room
  const auto counted = GateAllReads(files, share);
  for (uint64_t m = 0; m < models; ++m) {
    const std::string path = fields.Next();
    const std::string fingerprint = fields.Next();
    MERGEPIPE_RETURN_IF_ERROR(CheckFiles(files, fields));
    if (!fingerprints) continue;
    const bool is_base = m == 0;
    MERGEPIPE_RETURN_IF_ERROR(
        CheckFingerprint(files, is_base ? files : *counted, path, fingerprint));
  }
  return share.spent().count();
}

// Whether this rank is the first of a host other than rank 0's; on rank 0 also how many there are.
struct Looker {
  bool looks = false;
  uint64_t hosts = 0;
};

Looker ChooseLookers(Communicator& communicator) {
  const std::vector<std::string> hosts = communicator.Gather(HostName());
  std::vector<std::string> roles(hosts.size(), "");
  Looker looker;
  for (size_t rank = 1; rank < hosts.size(); ++rank) {
    const auto end = hosts.begin() + static_cast<std::ptrdiff_t>(rank);
    if (std::find(hosts.begin(), end, hosts[rank]) != end) continue;
    roles[rank] = "look";
    ++looker.hosts;
  }
  looker.looks = !communicator.Scatter(std::move(roles)).empty();
  return looker;
}

}  // namespace

Result<bool> CheckInputsOnHosts(FileSystem& files, Communicator& communicator,
                                const ResolvedInputs* inputs, uint64_t room,
                                std::vector<PlanningIo>* read) {
  if (communicator.size() == 1) return true;
  const Looker looker = ChooseLookers(communicator);
  bool fingerprints = true;
  std::string description;
  if (inputs != nullptr) {
    uint64_t needed = 0;
    for (const ResolvedModel& expert : inputs->experts)
      needed += looker.hosts * FingerprintBytes(expert.record.layout);
    fingerprints = needed <= room;
    if (looker.hosts > 0) description = Describe(*inputs, fingerprints);
  }
  communicator.Broadcast(description);
  Result<uint64_t> bytes = uint64_t{0};
  if (looker.looks) bytes = CheckHere(files, description);
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(bytes ? Status() : Status(tl::unexpected(bytes.error()))));
  const std::vector<std::string> counts = communicator.Gather(std::to_string(*bytes));
  if (read != nullptr && read->size() < counts.size()) read->resize(counts.size());
  for (size_t rank = 0; read != nullptr && rank < counts.size(); ++rank)
    (*read)[rank].expert_bytes += Fields(counts[rank]).NextNumber();
  return fingerprints;
}

}  // namespace mergepipe
