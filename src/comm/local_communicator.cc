#include <cstdlib>
#include <deque>
#include <map>

#include "mergepipe/comm/communicator.h"

namespace mergepipe {
namespace {

class LocalCommunicatorImpl final : public Communicator {
 public:
  Rank rank() const override { return Rank(0); }
  int size() const override { return 1; }
  void Broadcast(std::string&) override {}
  std::vector<std::string> Gather(std::string bytes) override { return {std::move(bytes)}; }
  std::string Scatter(std::vector<std::string> parts) override { return std::move(parts.at(0)); }

  // Messages to oneself wait in a queue.
  void Send(Rank, int tag, std::string bytes) override { mail_[tag].push_back(std::move(bytes)); }
  std::string Receive(Rank, int tag) override {
    std::deque<std::string>& queue = mail_[tag];
    if (queue.empty()) std::abort();  // a real communicator would wait for ever
    std::string bytes = std::move(queue.front());
    queue.pop_front();
    return bytes;
  }

  std::optional<std::string> TryReceive(Rank from, int tag) override {
    if (mail_[tag].empty()) return std::nullopt;
    return Receive(from, tag);
  }
  std::optional<std::pair<Rank, std::string>> TryReceiveAny(int tag) override {
    auto bytes = TryReceive(Rank(0), tag);
    if (!bytes) return std::nullopt;
    return std::pair(Rank(0), std::move(*bytes));
  }

  Status Agree(Status mine) override {
    announced_ = false;
    return mine;
  }
  void AnnounceFailure() override { announced_ = true; }
  bool FailureAnnounced() override { return announced_; }
  [[noreturn]] void Abort(int exit_code) override { std::_Exit(exit_code); }

 private:
  std::map<int, std::deque<std::string>> mail_;
  bool announced_ = false;
};

}  // namespace

std::unique_ptr<Communicator> LocalCommunicator() {
  return std::make_unique<LocalCommunicatorImpl>();
}

}  // namespace mergepipe
