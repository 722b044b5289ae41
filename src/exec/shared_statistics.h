#pragma once

#include <memory>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/slice.h"
#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// One round's statistics of a tensor that several ranks share: each sends its own to the first of
/// them, which appends them in rank (and so in block) order and sends the sum back. Every rank of
/// the group calls this in every round until it gets nothing, also one that has failed: it offers
/// no statistics, and then all get nothing and leave.
/// Null: another rank has failed, and says so at the next Agree. An error: what arrived here is
/// unreadable (kInternal).
Result<std::unique_ptr<TensorStatistics>> ShareStatistics(Communicator& communicator,
                                                          const TensorPart& part,
                                                          const TensorMerge& tensor, int round,
                                                          std::unique_ptr<TensorStatistics> mine);

}  // namespace mergepipe
