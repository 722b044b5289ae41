#include "mergepipe/exec/journal.h"

#include <mutex>

#include "exec/report_codec.h"
#include "mergepipe/base/little_endian.h"

namespace mergepipe {

template <typename Codec>
void Fields(Codec& codec, MovedBytes& moved) {
  codec(moved.merged, moved.compared, moved.base, moved.written, moved.copied);
}

template <typename Codec>
void Fields(Codec& codec, FinishedUnit& unit) {
  codec(unit.reports, unit.moved);
}

template <typename Codec>
void Fields(Codec& codec, FinishedRounds& rounds) {
  codec(rounds.tensor, rounds.conclusion, rounds.merged);
}

namespace {

constexpr uint32_t kUnitTag = 0x54494e55;
constexpr uint32_t kRoundsTag = 0x444e4f52;
constexpr uint32_t kBegunTag = 0x4e474542;
constexpr uint32_t kHeadTag = 0x4c4e524a;
constexpr const char* kSubject = "journal";

struct Head {
  uint32_t version = 0;
  Hash128 identity;
};
constexpr uint32_t kVersion = 1;

template <typename Codec>
void Fields(Codec& codec, Head& head) {
  codec(head.version, head.identity);
}

struct Begun {
  uint64_t expert_bytes = 0;
};

template <typename Codec>
void Fields(Codec& codec, Begun& begun) {
  codec(begun.expert_bytes);
}

// Before each record: its length and its hash, little-endian.
constexpr size_t kLengthBytes = 8;
constexpr size_t kFrameBytes = kLengthBytes + 16;

std::string Framed(std::string_view record) {
  const Hash128 hash = HashText(record);
  std::string framed;
  framed.reserve(kFrameBytes + record.size());
  AppendLittleEndian(record.size(), framed);
  AppendLittleEndian(hash.high, framed);
  AppendLittleEndian(hash.low, framed);
  framed.append(record);
  return framed;
}

// Takes the next record off; nothing at the end, and at what is torn.
std::optional<std::string> TakeRecord(std::string_view& bytes) {
  if (bytes.size() < kFrameBytes) return std::nullopt;
  const uint64_t length = LittleEndianAt(bytes, 0);
  if (length > bytes.size() - kFrameBytes) return std::nullopt;
  const std::string_view record = bytes.substr(kFrameBytes, length);
  const Hash128 hash = HashText(record);
  if (hash.high != LittleEndianAt(bytes, kLengthBytes) ||
      hash.low != LittleEndianAt(bytes, kLengthBytes + 8))
    return std::nullopt;
  bytes.remove_prefix(kFrameBytes + length);
  return std::string(record);
}

bool IsHead(const std::optional<std::string>& record, Hash128 identity) {
  if (!record) return false;
  const auto head = FromBytes<Head>(*record, kHeadTag, kSubject);
  return head && head->version == kVersion && head->identity == identity;
}

// False for a record of no known kind.
bool Add(const std::string& record, JournalContents& contents) {
  if (auto unit = FromBytes<FinishedUnit>(record, kUnitTag, kSubject)) {
    contents.units.push_back(std::move(*unit));
  } else if (auto rounds = FromBytes<FinishedRounds>(record, kRoundsTag, kSubject)) {
    contents.rounds.push_back(std::move(*rounds));
  } else if (const auto begun = FromBytes<Begun>(record, kBegunTag, kSubject)) {
    contents.begun_bytes += begun->expert_bytes;
  } else {
    return false;
  }
  return true;
}

class FileJournalWriter final : public JournalWriter {
 public:
  explicit FileJournalWriter(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}

  Status Append(std::string_view record) override {
    const std::string framed = Framed(record);
    const std::lock_guard lock(mutex_);
    MERGEPIPE_RETURN_IF_ERROR(file_->WriteAt(end_, std::as_bytes(std::span(framed))));
    end_ += framed.size();
    return {};
  }

  Status Sync() override { return file_->Sync(); }

 private:
  std::unique_ptr<WritableFile> file_;
  std::mutex mutex_;
  uint64_t end_ = 0;
};

}  // namespace

MovedBytes& MovedBytes::operator+=(const MovedBytes& other) {
  merged += other.merged;
  compared += other.compared;
  base += other.base;
  written += other.written;
  copied += other.copied;
  return *this;
}

std::string JournalRecord(const FinishedUnit& unit) { return ToBytes(unit, kUnitTag); }
std::string JournalRecord(const FinishedRounds& rounds) { return ToBytes(rounds, kRoundsTag); }
std::string BegunRecord(uint64_t expert_bytes) { return ToBytes(Begun{expert_bytes}, kBegunTag); }

void ParseJournal(std::string_view bytes, Hash128 identity, JournalContents& contents) {
  if (!IsHead(TakeRecord(bytes), identity)) return;
  while (const auto record = TakeRecord(bytes)) {
    if (!Add(*record, contents)) return;
  }
}

Status ReadJournal(FileSystem& files, const std::string& path, Hash128 identity,
                   JournalContents& contents) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto file, files.OpenForReading(path));
  std::string bytes(file->size(), '\0');
  MERGEPIPE_RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(bytes))));
  ParseJournal(bytes, identity, contents);
  return {};
}

Result<std::unique_ptr<JournalWriter>> JournalWriter::Create(FileSystem& files,
                                                             const std::string& path,
                                                             Hash128 identity) {
  MERGEPIPE_ASSIGN_OR_RETURN(auto file, files.Create(path, 0));
  auto writer = std::make_unique<FileJournalWriter>(std::move(file));
  MERGEPIPE_RETURN_IF_ERROR(writer->Append(ToBytes(Head{kVersion, identity}, kHeadTag)));
  MERGEPIPE_RETURN_IF_ERROR(writer->Sync());
  MERGEPIPE_RETURN_IF_ERROR(files.SyncDirectory(ParentPath(path)));
  return writer;
}

}  // namespace mergepipe
