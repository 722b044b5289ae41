#include "exec/rank_service.h"

#include <charconv>
#include <numeric>
#include <string>

namespace mergepipe {
namespace {

constexpr int kProgressTag = 12;
constexpr int kFinishedTag = 13;
constexpr std::chrono::milliseconds kAloneInterval{100};
constexpr std::chrono::milliseconds kSendInterval{500};

// "<done> <total>"
std::string Encode(uint64_t done, uint64_t total) {
  return std::to_string(done) + " " + std::to_string(total);
}

// What cannot be read says nothing: progress decides nothing.
void Decode(const std::string& message, uint64_t& done, uint64_t& total) {
  const char* end = message.data() + message.size();
  const auto first = std::from_chars(message.data(), end, done);
  if (first.ptr < end) std::from_chars(first.ptr + 1, end, total);
}

}  // namespace

RankService::RankService(Communicator& communicator, RemoteOutput* remote, OutputReceiver* receiver,
                         ProgressListener* progress, uint64_t total_bytes)
    : communicator_(communicator),
      remote_(remote),
      receiver_(receiver),
      progress_(progress),
      done_(static_cast<size_t>(communicator.size())),
      total_(static_cast<size_t>(communicator.size())) {
  total_[static_cast<size_t>(communicator.rank().value)] = total_bytes;
}

Status RankService::Service(uint64_t done_bytes) {
  if (remote_ != nullptr) remote_->Service();
  ExchangeProgress(done_bytes);
  return receiver_ != nullptr ? receiver_->Service() : Status();
}

void RankService::ExchangeProgress(uint64_t done_bytes) {
  if (communicator_.is_root()) {
    while (const auto message = communicator_.TryReceiveAny(kProgressTag)) {
      const auto rank = static_cast<size_t>(message->first.value);
      Decode(message->second, done_[rank], total_[rank]);
    }
  }
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  done_[static_cast<size_t>(communicator_.rank().value)] = done_bytes;
  if (!communicator_.is_root()) {
    next_ = now + kSendInterval;
    communicator_.Send(Rank(0), kProgressTag,
                       Encode(done_bytes, total_[static_cast<size_t>(communicator_.rank().value)]));
    return;
  }
  next_ = now + kAloneInterval;
  if (progress_ == nullptr) return;
  progress_->Update(std::accumulate(done_.begin(), done_.end(), uint64_t{0}),
                    std::accumulate(total_.begin(), total_.end(), uint64_t{0}));
}

void RankService::Stop() {
  if (remote_ != nullptr) remote_->Stop();
}

bool RankService::Finish() {
  if (!communicator_.is_root()) {
    if (remote_ != nullptr && !remote_->AllArrived()) return false;
    if (!told_) communicator_.Send(Rank(0), kFinishedTag, {});
    told_ = true;
    return true;
  }
  while (communicator_.TryReceiveAny(kFinishedTag)) ++finished_;
  if (finished_ < communicator_.size() - 1) return false;
  // Sent before its sender finished, but not necessarily looked at before.
  while (communicator_.TryReceiveAny(kProgressTag)) {
  }
  return true;
}

}  // namespace mergepipe
