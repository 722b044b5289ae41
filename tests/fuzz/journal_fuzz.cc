#include "mergepipe/exec/journal.h"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "support/memory_file_system.h"

namespace {

using namespace mergepipe;

constexpr Hash128 kIdentity{1, 2};
constexpr const char* kPath = "/journal";

// A journal whose only record has these bytes, and a right checksum.
std::string JournalOf(std::string_view record) {
  MemoryFileSystem files;
  const auto writer = JournalWriter::Create(files, kPath, kIdentity);
  if (!writer || !(*writer)->Append(record)) std::abort();
  auto text = ReadSmallFile(files, kPath, uint64_t{1} << 30);
  if (!text) std::abort();
  return std::move(*text);
}

}  // namespace

// Whatever lies in a journal file is parsed to whole records. What is parsed of a record is written
// as one that parses to the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  JournalContents raw;
  ParseJournal(bytes, kIdentity, raw);

  JournalContents contents;
  ParseJournal(JournalOf(bytes), kIdentity, contents);
  for (const FinishedUnit& unit : contents.units) {
    JournalContents again;
    ParseJournal(JournalOf(JournalRecord(unit)), kIdentity, again);
    if (again.units.size() != 1 || again.units[0] != unit) std::abort();
  }
  for (const FinishedRounds& rounds : contents.rounds) {
    JournalContents again;
    ParseJournal(JournalOf(JournalRecord(rounds)), kIdentity, again);
    if (again.rounds.size() != 1 || again.rounds[0] != rounds) std::abort();
  }
  return 0;
}
