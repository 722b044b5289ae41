#include "catalog/statistics_rows.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "catalog/checksum.h"
#include "catalog/row_reader.h"
#include "catalog/statistics_codec.h"
#include "mergepipe/base/checked.h"
#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

std::string DescribeTensor(const StatisticsSet& set, uint32_t tensor) {
  return Describe(set) + ", tensor " + std::to_string(tensor);
}

/// A query for the key of a set whose numbers are bound to ?1 to ?4.
std::string SelectKey(const StatisticsSet& set) {
  // A null is equal to nothing, so that an unknown expert does not find the base's own.
  return std::string(
             "(SELECT key FROM statistics_sets WHERE base = (SELECT key FROM models WHERE id = ?1) "
             "AND block_size = ?3 AND stride = ?4 AND expert ") +
         (set.expert ? "= (SELECT key FROM models WHERE id = ?2))" : "IS NULL)");
}

/// As sqlite3 keeps numbers; nothing if they are too large to have been put.
struct Numbers {
  int64_t block_size;
  int64_t stride;
};
std::optional<Numbers> ToNumbers(const StatisticsSet& set) {
  const auto block_size = Narrow<int64_t>(set.block_size);
  const auto stride = Narrow<int64_t>(set.stride);
  if (!block_size || !stride) return std::nullopt;
  return Numbers{*block_size, *stride};
}

/// Where a row stands, and what it covers.
struct Chunk {
  uint32_t tensor = 0;
  uint64_t number = 0;
  uint64_t blocks = 0;  ///< of the whole tensor

  uint64_t begin() const { return number * kChunkBlocks; }
  uint64_t size() const { return std::min(kChunkBlocks, blocks - begin()); }
};

std::string RowChecksum(const StatisticsSet& set, const Chunk& chunk,
                        std::span<const std::byte> data) {
  Checksum sum;
  sum << set.base << uint64_t{set.expert.has_value()} << set.expert.value_or("") << set.block_size
      << set.stride << uint64_t{chunk.tensor} << chunk.number << chunk.blocks
      << std::string_view(reinterpret_cast<const char*>(data.data()), data.size());
  return sum.ToHex();
}

Status CheckRegistered(Connection& connection, const std::string& id) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement find,
                             connection.Prepare("SELECT 1 FROM models WHERE id = ?1"));
  find.Bind(id);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, find.Step());
  if (found) return {};
  return Fail(ErrorKind::kInternal, connection.subject(),
              "has no model " + Quote(id) + " to keep statistics of");
}

Result<std::optional<int64_t>> FindKey(Connection& connection, const StatisticsSet& set) {
  const auto numbers = ToNumbers(set);
  if (!numbers) return std::nullopt;
  MERGEPIPE_ASSIGN_OR_RETURN(Statement find, connection.Prepare("SELECT " + SelectKey(set)));
  find.Bind(set.base, set.expert, numbers->block_size, numbers->stride);
  MERGEPIPE_ASSIGN_OR_RETURN(const bool found, find.Step());
  if (!found || find.IsNull(0)) return std::nullopt;
  return find.Integer(0);
}

template <typename Block>
Status InsertChunk(Statement& insert, int64_t key, const StatisticsSet& set, const Chunk& chunk,
                   std::span<const Block> blocks) {
  const std::vector<std::byte> data = Pack(blocks.subspan(chunk.begin(), chunk.size()));
  insert.Bind(key, int64_t{chunk.tensor}, static_cast<int64_t>(chunk.number),
              static_cast<int64_t>(chunk.blocks), RowChecksum(set, chunk, data),
              std::span<const std::byte>(data));
  return insert.Run();
}

template <typename Block>
Status WriteRows(Connection& connection, int64_t key, const StatisticsSet& set, uint32_t tensor,
                 const std::vector<Block>& blocks) {
  if (!std::all_of(blocks.begin(), blocks.end(), [](const Block& b) { return IsPossible(b); })) {
    return Fail(ErrorKind::kInternal, connection.subject(),
                DescribeTensor(set, tensor) + ": a number is not finite or negative");
  }
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement remove,
      connection.Prepare("DELETE FROM statistics WHERE set_key = ?1 AND tensor = ?2"));
  remove.Bind(key, int64_t{tensor});
  MERGEPIPE_RETURN_IF_ERROR(remove.Run());
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement insert,
      connection.Prepare("INSERT INTO statistics (set_key, tensor, chunk, blocks, checksum, data) "
                         "VALUES (?1, ?2, ?3, ?4, ?5, ?6)"));
  Chunk chunk{tensor, 0, blocks.size()};
  do {  // a tensor without blocks has a row, too
    MERGEPIPE_RETURN_IF_ERROR(InsertChunk(insert, key, set, chunk, std::span(blocks)));
    ++chunk.number;
  } while (chunk.begin() < chunk.blocks);
  return {};
}

/// Appends the blocks of the current row, which must be that of the `number`-th chunk. Gives the
/// number of blocks that the tensor is said to have.
template <typename Block>
Result<uint64_t> ReadChunk(const Connection& connection, const Statement& rows,
                           const StatisticsSet& set, uint32_t tensor, uint64_t number,
                           std::vector<Block>& blocks) {
  RowReader row(connection, rows, DescribeTensor(set, tensor));
  if (row.Unsigned() != number) row.Reject("chunk: rows are missing");
  const Chunk chunk{tensor, number, row.Unsigned()};
  const std::string checksum = row.Text();
  const std::span<const std::byte> data = row.Blob();
  if (chunk.begin() > chunk.blocks || data.size() != chunk.size() * kRecordBytes<Block>) {
    row.Reject("length");
  } else if (checksum != RowChecksum(set, chunk, data)) {
    row.Reject("checksum");
  } else if (!Unpack(data, blocks)) {
    row.Reject("number");
  }
  MERGEPIPE_RETURN_IF_ERROR(row.status());
  return chunk.blocks;
}

Result<Statement> SelectRows(Connection& connection, std::string_view condition) {
  constexpr std::string_view kColumns =
      "SELECT chunk, blocks, checksum, data FROM statistics WHERE set_key = ";
  return connection.Prepare(std::string(kColumns).append(condition).append(" ORDER BY chunk"));
}

/// The blocks of all rows.
template <typename Block>
Result<std::optional<std::vector<Block>>> ReadSelected(const Connection& connection,
                                                       Statement& rows, const StatisticsSet& set,
                                                       uint32_t tensor) {
  std::vector<Block> blocks;
  uint64_t expected = 0;
  for (uint64_t number = 0;; ++number) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more && number == 0) return std::nullopt;
    if (!more) break;
    MERGEPIPE_ASSIGN_OR_RETURN(expected, ReadChunk(connection, rows, set, tensor, number, blocks));
  }
  if (blocks.size() == expected) return std::optional(std::move(blocks));
  return Fail(connection.Damaged(DescribeTensor(set, tensor) + ": rows are missing"));
}

template <typename Block>
Result<std::optional<std::vector<Block>>> ReadRows(Connection& connection, const StatisticsSet& set,
                                                   uint32_t tensor) {
  const auto numbers = ToNumbers(set);
  if (!numbers) return std::nullopt;
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows,
                             SelectRows(connection, SelectKey(set) + " AND tensor = ?5"));
  rows.Bind(set.base, set.expert, numbers->block_size, numbers->stride, int64_t{tensor});
  return ReadSelected<Block>(connection, rows, set, tensor);
}

Result<std::vector<StatisticsSet>> ReadSets(Connection& connection) {
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement rows,
      connection.Prepare("SELECT b.id, e.id, s.block_size, s.stride FROM statistics_sets s "
                         "JOIN models b ON b.key = s.base LEFT JOIN models e ON e.key = s.expert"));
  std::vector<StatisticsSet> sets;
  for (;;) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more) return sets;
    RowReader row(connection, rows, "sets of statistics");
    StatisticsSet set;
    set.base = row.Text();
    set.expert = row.OptionalText();
    set.block_size = row.Unsigned();
    set.stride = row.Unsigned();
    MERGEPIPE_RETURN_IF_ERROR(row.status());
    sets.push_back(std::move(set));
  }
}

}  // namespace

std::string Describe(const StatisticsSet& set) {
  return set.expert ? "statistics of " + Quote(*set.expert) + " from " + Quote(set.base)
                    : "statistics of the base " + Quote(set.base);
}

StatisticsSet StatisticsSet::Of(const StatisticsId& id) {
  return {id.base, id.expert, id.block_size, id.stride};
}

StatisticsSet StatisticsSet::OfBase(const std::string& base, uint64_t block_size) {
  return {base, std::nullopt, block_size, 0};
}

Result<int64_t> MakeStatisticsSet(Connection& connection, const StatisticsSet& set) {
  const auto numbers = ToNumbers(set);
  if (!numbers) {
    return Fail(ErrorKind::kInternal, connection.subject(),
                Describe(set) + ": the block size or stride is too large");
  }
  MERGEPIPE_RETURN_IF_ERROR(CheckRegistered(connection, set.base));
  if (set.expert) MERGEPIPE_RETURN_IF_ERROR(CheckRegistered(connection, *set.expert));
  MERGEPIPE_ASSIGN_OR_RETURN(std::optional<int64_t> key, FindKey(connection, set));
  if (key) return *key;
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement insert,
      connection.Prepare("INSERT INTO statistics_sets (base, expert, block_size, stride) VALUES "
                         "((SELECT key FROM models WHERE id = ?1), "
                         "(SELECT key FROM models WHERE id = ?2), ?3, ?4)"));
  insert.Bind(set.base, set.expert, numbers->block_size, numbers->stride);
  MERGEPIPE_RETURN_IF_ERROR(insert.Run());
  MERGEPIPE_ASSIGN_OR_RETURN(key, FindKey(connection, set));
  if (key) return *key;
  return Fail(connection.Damaged("a new set of statistics is not found"));
}

Status WriteStatisticsRows(Connection& connection, int64_t key, const StatisticsSet& set,
                           const TensorBlockStatistics& tensor) {
  return WriteRows(connection, key, set, tensor.tensor, tensor.blocks);
}

Status WriteStatisticsRows(Connection& connection, int64_t key, const StatisticsSet& set,
                           const BaseTensorBlockStatistics& tensor) {
  return WriteRows(connection, key, set, tensor.tensor, tensor.blocks);
}

Result<std::vector<uint32_t>> ReadStatisticsTensors(Connection& connection,
                                                    const StatisticsSet& set) {
  std::vector<uint32_t> tensors;
  const auto numbers = ToNumbers(set);
  if (!numbers) return tensors;
  MERGEPIPE_ASSIGN_OR_RETURN(
      Statement rows, connection.Prepare("SELECT DISTINCT tensor FROM statistics WHERE set_key = " +
                                         SelectKey(set) + " ORDER BY tensor"));
  rows.Bind(set.base, set.expert, numbers->block_size, numbers->stride);
  for (;;) {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more) return tensors;
    RowReader row(connection, rows, Describe(set));
    const auto tensor = Narrow<uint32_t>(row.Unsigned());
    if (!tensor) row.Reject("tensor");
    MERGEPIPE_RETURN_IF_ERROR(row.status());
    tensors.push_back(*tensor);
  }
}

Result<std::optional<std::vector<BlockStatistics>>> ReadStatisticsRows(Connection& connection,
                                                                       const StatisticsSet& set,
                                                                       uint32_t tensor) {
  return ReadRows<BlockStatistics>(connection, set, tensor);
}

Result<std::optional<std::vector<BaseBlockStatistics>>> ReadBaseStatisticsRows(
    Connection& connection, const StatisticsSet& set, uint32_t tensor) {
  return ReadRows<BaseBlockStatistics>(connection, set, tensor);
}

template <typename Block>
Result<std::optional<std::vector<Block>>> ReadStatisticsAt(Connection& connection, int64_t key,
                                                           const StatisticsSet& set,
                                                           uint32_t tensor) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement rows, SelectRows(connection, "?1 AND tensor = ?2"));
  rows.Bind(key, int64_t{tensor});
  return ReadSelected<Block>(connection, rows, set, tensor);
}

template Result<std::optional<std::vector<BlockStatistics>>> ReadStatisticsAt(Connection&, int64_t,
                                                                              const StatisticsSet&,
                                                                              uint32_t);
template Result<std::optional<std::vector<BaseBlockStatistics>>> ReadStatisticsAt(
    Connection&, int64_t, const StatisticsSet&, uint32_t);

Status DropStatisticsSets(Connection& connection, const std::string& base,
                          const std::string& expert) {
  MERGEPIPE_ASSIGN_OR_RETURN(Statement remove,
                             connection.Prepare("DELETE FROM statistics_sets WHERE "
                                                "base = (SELECT key FROM models WHERE id = ?1) AND "
                                                "expert = (SELECT key FROM models WHERE id = ?2)"));
  remove.Bind(base, expert);
  return remove.Run();
}

Status CheckStatisticsRows(Connection& connection) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto sets, ReadSets(connection));
  for (const StatisticsSet& set : sets) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto tensors, ReadStatisticsTensors(connection, set));
    for (const uint32_t tensor : tensors) {
      if (set.expert) {
        MERGEPIPE_RETURN_IF_ERROR(ReadStatisticsRows(connection, set, tensor));
      } else {
        MERGEPIPE_RETURN_IF_ERROR(ReadBaseStatisticsRows(connection, set, tensor));
      }
    }
  }
  return {};
}

}  // namespace mergepipe
