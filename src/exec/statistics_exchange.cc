#include "exec/statistics_exchange.h"

namespace mergepipe {
namespace {

constexpr int kToLeader = 1;
constexpr int kFromLeader = 2;
// First byte of a message: whether statistics follow, and a round after this one.
constexpr char kMore = '+';
constexpr char kLast = '.';
constexpr char kAbsent = '-';

}  // namespace

StatisticsExchange::StatisticsExchange(Communicator& communicator, JobObserver& job)
    : communicator_(communicator), job_(job), next_member_(job.part().first_rank + 1) {}

void StatisticsExchange::Offer(std::unique_ptr<TensorStatistics> mine) {
  waiting_ = true;
  mine_ = std::move(mine);
  next_member_ = job_.part().first_rank + 1;
  if (leads()) return;
  std::string message(1, mine_ ? kMore : kAbsent);
  if (mine_) message += mine_->Serialize();
  communicator_.Send(Rank(job_.part().first_rank), kToLeader, std::move(message));
}

Result<StatisticsExchange::Outcome> StatisticsExchange::Poll() {
  return leads() ? PollLeader() : PollMember();
}

Result<StatisticsExchange::Outcome> StatisticsExchange::PollLeader() {
  for (; next_member_ <= job_.part().last_rank; ++next_member_) {
    const auto message = communicator_.TryReceive(Rank(next_member_), kToLeader);
    if (!message) return Outcome::kPending;
    const bool present = !message->empty() && message->front() == kMore;
    if (!mine_) continue;
    if (!present) {
      mine_.reset();
      continue;
    }
    auto next = job_.tensor().ParseStatistics(std::string_view(*message).substr(1));
    if (!next) {
      failure_ = tl::unexpected(next.error());
      mine_.reset();
      continue;
    }
    mine_->Append(**next);
  }
  waiting_ = false;
  return Conclude();
}

Result<StatisticsExchange::Outcome> StatisticsExchange::Conclude() {
  if (mine_) {
    // Before the round ends: its end decides how the next one's statistics look.
    const std::string sum = mine_->Serialize();
    const Status finished = job_.Finish(*mine_);
    if (finished) {
      const bool more = job_.WantsRound();
      SendToMembers((more ? kMore : kLast) + sum);
      return more ? Outcome::kRoundOver : Outcome::kObserved;
    }
    failure_ = finished;
  }
  SendToMembers(std::string(1, kAbsent));
  MERGEPIPE_RETURN_IF_ERROR(failure_);
  return Outcome::kLeft;
}

void StatisticsExchange::SendToMembers(const std::string& message) {
  for (int member = job_.part().first_rank + 1; member <= job_.part().last_rank; ++member)
    communicator_.Send(Rank(member), kFromLeader, message);
}

Result<StatisticsExchange::Outcome> StatisticsExchange::PollMember() {
  const auto message = communicator_.TryReceive(Rank(job_.part().first_rank), kFromLeader);
  if (!message) return Outcome::kPending;
  waiting_ = false;
  if (message->empty() || message->front() == kAbsent) return Outcome::kLeft;
  const bool more = message->front() == kMore;
  const auto sum = job_.tensor().ParseStatistics(std::string_view(*message).substr(1));
  const Status finished = sum ? job_.Finish(**sum) : Status(tl::unexpected(sum.error()));
  if (!finished) {
    // The leader counts on this rank in the next round.
    if (more) Offer(nullptr);
    return tl::unexpected(finished.error());
  }
  return more ? Outcome::kRoundOver : Outcome::kObserved;
}

}  // namespace mergepipe
