#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "catalog/sqlite.h"
#include "mergepipe/base/error.h"
#include "mergepipe/base/hash.h"

namespace mergepipe {

/// Reads the columns of a statement's current row one after the other and checks each: what a file
/// holds is data, whoever wrote it. After the first bad value all are defaults; ask status() before
/// using any.
class RowReader {
 public:
  /// `place` says what the row describes, for the error.
  RowReader(const Connection& connection, const Statement& row, std::string place);

  int64_t Signed();
  uint64_t Unsigned();  ///< refuses negative numbers
  bool Flag();          ///< refuses all but 0 and 1
  std::string Text();
  std::optional<std::string> OptionalText();
  Hash128 Hash();
  std::span<const std::byte> Blob();  ///< until the statement's next step

  /// Notes that the value just read is not a possible `what`.
  void Reject(std::string_view what);
  Status status() const;

 private:
  const Connection* connection_;
  const Statement* row_;
  std::string place_;
  int column_ = 0;
  std::string problem_;
};

}  // namespace mergepipe
