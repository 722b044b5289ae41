#pragma once

#include <optional>

#include "mergepipe/exec/slice.h"
#include "mergepipe/plan/plan.h"
#include "mergepipe/plan/statistics.h"

namespace mergepipe {

/// The block hashes that statistics know, part by part. Parts come in file order.
class KnownBlocks {
 public:
  /// `statistics` may be null: then nothing is known.
  KnownBlocks(const Plan& plan, StatisticsSource* statistics)
      : plan_(plan), statistics_(statistics) {}

  /// Sets known_hashes and known_base_hashes. An error is that of the statistics, or kInternal if
  /// they are not one a block.
  Status AddTo(TensorPart& part);

 private:
  Status Load(uint32_t tensor);
  Status LoadExpert(uint32_t expert, uint32_t tensor);

  const Plan& plan_;
  StatisticsSource* statistics_;
  std::optional<uint32_t> tensor_;  // whose hashes are loaded: of all blocks, or none
  std::vector<Hash128> base_;
  std::vector<std::vector<Hash128>> experts_;
};

}  // namespace mergepipe
