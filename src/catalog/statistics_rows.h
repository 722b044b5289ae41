#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "catalog/sqlite.h"
#include "mergepipe/base/error.h"
#include "mergepipe/catalog/catalog.h"

namespace mergepipe {

/// A tensor with more blocks has several rows.
inline constexpr uint64_t kChunkBlocks = uint64_t{1} << 20;

/// What a `statistics_sets` row says. Without an expert it is of the base itself.
struct StatisticsSet {
  std::string base;
  std::optional<std::string> expert;
  uint64_t block_size = 0;
  uint64_t stride = 0;

  static StatisticsSet Of(const StatisticsId& id);
  static StatisticsSet OfBase(const std::string& base, uint64_t block_size);
};

/// "statistics of 'code' from 'qwen3'".
std::string Describe(const StatisticsSet& set);

/// The key of a set, which is made if it is not there. kInternal if a model is not registered or a
/// number is too large. Call it in a transaction, as all that write here.
Result<int64_t> MakeStatisticsSet(Connection& connection, const StatisticsSet& set);

/// Writes a tensor's blocks in place of those that the set with that key has. kInternal, before
/// anything is written, for values that could not be read again.
Status WriteStatisticsRows(Connection& connection, int64_t key, const StatisticsSet& set,
                           const TensorBlockStatistics& tensor);
Status WriteStatisticsRows(Connection& connection, int64_t key, const StatisticsSet& set,
                           const BaseTensorBlockStatistics& tensor);

/// The tensors of a set, ascending.
Result<std::vector<uint32_t>> ReadStatisticsTensors(Connection& connection,
                                                    const StatisticsSet& set);
/// A tensor's blocks; nothing if the set does not have it.
Result<std::optional<std::vector<BlockStatistics>>> ReadStatisticsRows(Connection& connection,
                                                                       const StatisticsSet& set,
                                                                       uint32_t tensor);
Result<std::optional<std::vector<BaseBlockStatistics>>> ReadBaseStatisticsRows(
    Connection& connection, const StatisticsSet& set, uint32_t tensor);

/// The same from the set with that key, which is known to be `set`; to read damaged files.
template <typename Block>
Result<std::optional<std::vector<Block>>> ReadStatisticsAt(Connection& connection, int64_t key,
                                                           const StatisticsSet& set,
                                                           uint32_t tensor);

Status DropStatisticsSets(Connection& connection, const std::string& base,
                          const std::string& expert);

/// Reads every set and row. Call it in a transaction.
Status CheckStatisticsRows(Connection& connection);

}  // namespace mergepipe
