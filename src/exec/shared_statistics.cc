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

std::unique_ptr<TensorStatistics> Decode(const std::string& message, const TensorMerge& tensor,
                                         int round) {
  if (message.empty() || message.front() != kPresent) return nullptr;
  auto statistics = tensor.ParseStatistics(round, std::string_view(message).substr(1));
  return statistics ? std::move(*statistics) : nullptr;
}

}  // namespace

std::unique_ptr<TensorStatistics> ShareStatistics(Communicator& communicator,
                                                  const TensorPart& part, const TensorMerge& tensor,
                                                  int round,
                                                  std::unique_ptr<TensorStatistics> mine) {
  const Rank leader(part.first_rank);
  std::unique_ptr<TensorStatistics> sum;
  if (communicator.rank() == leader) {
    sum = std::move(mine);
    for (int member = part.first_rank + 1; member <= part.last_rank; ++member) {
      const auto next = Decode(communicator.Receive(Rank(member), kToLeader), tensor, round);
      if (sum && next) {
        sum->Append(*next);
      } else {
        sum.reset();
      }
    }
    const std::string message = Encode(sum.get());
    for (int member = part.first_rank + 1; member <= part.last_rank; ++member) {
      communicator.Send(Rank(member), kFromLeader, message);
    }
  } else {
    communicator.Send(leader, kToLeader, Encode(mine.get()));
    sum = Decode(communicator.Receive(leader, kFromLeader), tensor, round);
  }
  return sum;
}

}  // namespace mergepipe
