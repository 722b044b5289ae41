#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mergepipe/exec/report.h"
#include "mergepipe/io/file.h"

/// \file
/// What a rank has finished, so that a killed merge can go on: one append-only file for each rank
/// and attempt, in a directory beside the staging directory. A record is written once the data that
/// it speaks of are synced, except that a read that begins is noted at once, unsynced. Each record
/// has a length and a checksum; what follows the first that does not fit, a torn tail, counts for
/// nothing.
///
/// Records are by tensor and block, not by rank: any number of ranks can go on.
namespace mergepipe {

/// Bytes that finished work has moved.
struct MovedBytes {
  uint64_t merged = 0;    ///< expert bytes to merge
  uint64_t compared = 0;  ///< expert bytes to compare integer tensors
  uint64_t base = 0;
  uint64_t written = 0;
  uint64_t copied = 0;  ///< of the written, bytes of the base that went to the output unchanged

  MovedBytes& operator+=(const MovedBytes& other);
  bool operator==(const MovedBytes&) const = default;
};

/// Blocks that were made and written together. Every report is of consecutive blocks.
struct FinishedUnit {
  std::vector<PartReport> reports;
  MovedBytes moved;

  bool operator==(const FinishedUnit&) const = default;
};

/// The end of all rounds over a tensor.
struct FinishedRounds {
  uint32_t tensor = 0;
  std::string conclusion;  ///< TensorMerge::Conclusion
  uint64_t merged = 0;     ///< expert bytes that the rounds have read beyond what making reads

  bool operator==(const FinishedRounds&) const = default;
};

/// One record of a journal as bytes.
std::string JournalRecord(const FinishedUnit& unit);
std::string JournalRecord(const FinishedRounds& rounds);
/// Expert bytes that are about to be read.
std::string BegunRecord(uint64_t expert_bytes);

/// What the journals of all earlier attempts say.
struct JournalContents {
  std::vector<FinishedUnit> units;
  std::vector<FinishedRounds> rounds;
  uint64_t begun_bytes = 0;  ///< expert bytes that some attempt began to read
};

/// Adds what the journal file at `path` says of the output `identity`. A file that is no journal of
/// it, or none at all, says nothing; an error only if it cannot be read.
Status ReadJournal(FileSystem& files, const std::string& path, Hash128 identity,
                   JournalContents& contents);

/// Parses the bytes of a journal file: as ReadJournal.
void ParseJournal(std::string_view bytes, Hash128 identity, JournalContents& contents);

/// Writes a journal file. Thread-safe.
class JournalWriter {
 public:
  /// Makes the file at `path` and the head in it; its name is synced too.
  static Result<std::unique_ptr<JournalWriter>> Create(FileSystem& files, const std::string& path,
                                                       Hash128 identity);
  virtual ~JournalWriter() = default;
  /// Appends a record.
  virtual Status Append(std::string_view record) = 0;
  virtual Status Sync() = 0;
};

}  // namespace mergepipe
