#include "exec/shared_statistics.h"

namespace mergepipe {
namespace {

constexpr int kToLeader = 1;
constexpr int kFromLeader = 2;
// First byte of a message: whether statistics follow.
constexpr char kPresent = '+';
constexpr char kAbsent = '-';

std::string Encode(const TensorStatistics* statistics) {
  if (statistics == nullptr) return std::string(1, kAbsent);
  return kPresent + statistics->Serialize();
}

// Null if the sender has none; an error if what it sent cannot be read.
Result<std::unique_ptr<TensorStatistics>> Decode(const std::string& message,
                                                 const TensorMerge& tensor, int round) {
  if (message.empty() || message.front() != kPresent) return nullptr;
  return tensor.ParseStatistics(round, std::string_view(message).substr(1));
}

}  // namespace

Result<std::unique_ptr<TensorStatistics>> ShareStatistics(Communicator& communicator,
                                                          const TensorPart& part,
                                                          const TensorMerge& tensor, int round,
                                                          std::unique_ptr<TensorStatistics> mine) {
  const Rank leader(part.first_rank);
  if (communicator.rank() != leader) {
    communicator.Send(leader, kToLeader, Encode(mine.get()));
    return Decode(communicator.Receive(leader, kFromLeader), tensor, round);
  }
  Status readable;
  for (int member = part.first_rank + 1; member <= part.last_rank; ++member) {
    const auto next = Decode(communicator.Receive(Rank(member), kToLeader), tensor, round);
    if (!next && readable) readable = tl::unexpected(next.error());
    if (mine && next && *next) {
      mine->Append(**next);
    } else {
      mine.reset();
    }
  }
  const std::string message = Encode(mine.get());
  for (int member = part.first_rank + 1; member <= part.last_rank; ++member) {
    communicator.Send(Rank(member), kFromLeader, message);
  }
  MERGEPIPE_RETURN_IF_ERROR(readable);
  return mine;
}

}  // namespace mergepipe
