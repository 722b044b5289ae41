#include "comm/mpi_communicator.h"

#include <algorithm>
#include <boost/mpi/collectives.hpp>
#include <boost/mpi/communicator.hpp>
#include <boost/mpi/environment.hpp>
#include <boost/mpi/nonblocking.hpp>
#include <climits>
#include <cstdio>
#include <exception>
#include <list>
#include <stdexcept>

#include "mergepipe/base/checked.h"

namespace mergepipe {
namespace {

namespace mpi = boost::mpi;

constexpr int kMaxTag = 1000;
constexpr int kFailureTag = kMaxTag;
constexpr int kAbortCode = 70;
// MPI counts are ints: longer messages go in pieces.
constexpr uint64_t kMaxPiece = uint64_t{1} << 30;

int PieceSize(uint64_t total, uint64_t offset) {
  return Narrow<int>(std::min(kMaxPiece, total - offset)).value();
}

class MpiCommunicatorImpl final : public Communicator {
 public:
  Rank rank() const override { return Rank(world_.rank()); }
  int size() const override { return world_.size(); }

  void Broadcast(std::string& bytes) override {
    Guarded([&] { BroadcastFrom(0, bytes); });
  }

  std::vector<std::string> Gather(std::string bytes) override {
    return Guarded([&] { return GatherToRoot(std::move(bytes)); });
  }

  std::string Scatter(std::vector<std::string> parts) override {
    return Guarded([&] { return ScatterFromRoot(std::move(parts)); });
  }

  void Send(Rank to, int tag, std::string bytes) override {
    Guarded([&] { SendBytes(to.value, tag, std::move(bytes)); });
  }

  std::string Receive(Rank from, int tag) override {
    return Guarded([&] { return ReceiveBytes(from.value, tag); });
  }

  std::optional<std::string> TryReceive(Rank from, int tag) override {
    return Guarded([&]() -> std::optional<std::string> {
      ReapSends();
      if (!world_.iprobe(from.value, tag)) return std::nullopt;
      return ReceiveBytes(from.value, tag);
    });
  }

  std::optional<std::pair<Rank, std::string>> TryReceiveAny(int tag) override {
    return Guarded([&]() -> std::optional<std::pair<Rank, std::string>> {
      ReapSends();
      const auto found = world_.iprobe(mpi::any_source, tag);
      if (!found) return std::nullopt;
      return std::pair(Rank(found->source()), ReceiveBytes(found->source(), tag));
    });
  }

  Status Agree(Status mine) override {
    return Guarded([&]() -> Status {
      WaitForSends();
      const bool failed = !mine.has_value();
      std::vector<char> failures;
      mpi::all_gather(world_, static_cast<char>(failed ? 1 : 0), failures);
      DrainAnnouncements();
      const auto first = std::find(failures.begin(), failures.end(), 1);
      if (first == failures.end()) return {};
      const int who = static_cast<int>(first - failures.begin());
      std::string bytes = who == world_.rank() ? SerializeStatus(Located(mine)) : std::string();
      BroadcastFrom(who, bytes);
      return ParseStatus(bytes);
    });
  }

  void AnnounceFailure() override {
    Guarded([&] {
      if (notified_) return;
      announced_ = true;
      for (int other = 0; other < world_.size(); ++other) {
        if (other != world_.rank()) notices_.push_back(world_.isend(other, kFailureTag));
      }
      notified_ = true;
    });
  }

  bool FailureAnnounced() override {
    return Guarded([&] {
      while (!announced_ && world_.iprobe(mpi::any_source, kFailureTag)) {
        world_.recv(mpi::any_source, kFailureTag);
        ++received_;
        announced_ = true;
      }
      return announced_;
    });
  }

  [[noreturn]] void Abort(int exit_code) override {
    mpi::environment::abort(exit_code);
    std::_Exit(exit_code);
  }

 private:
  // Nothing can be agreed on with ranks that cannot be reached: end the job.
  template <typename F>
  auto Guarded(F&& body) -> decltype(body()) {
    try {
      return body();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "[rank %d] mergepipe: error: MPI: %s\n", world_.rank(), e.what());
      Abort(kAbortCode);
    }
  }

  Status Located(const Status& status) const {
    if (world_.size() == 1) return status;
    std::vector<Problem> problems = status.error().problems();
    for (Problem& problem : problems) {
      problem.subject = "[rank " + std::to_string(world_.rank()) + ", host " + HostName() + "] " +
                        problem.subject;
    }
    return Fail(status.error().kind(), std::move(problems));
  }

  void BroadcastFrom(int root, std::string& bytes) {
    uint64_t size = bytes.size();
    mpi::broadcast(world_, size, root);
    bytes.resize(size);
    for (uint64_t at = 0; at < size; at += kMaxPiece) {
      mpi::broadcast(world_, bytes.data() + at, PieceSize(size, at), root);
    }
  }

  void SendBytes(int to, int tag, std::string bytes) {
    ReapSends();
    sends_.push_back({std::move(bytes), 0, {}});
    Outgoing& out = sends_.back();
    out.size = out.bytes.size();
    out.requests.push_back(world_.isend(to, tag, &out.size, 1));
    for (uint64_t at = 0; at < out.size; at += kMaxPiece) {
      out.requests.push_back(world_.isend(to, tag, out.bytes.data() + at, PieceSize(out.size, at)));
    }
  }

  std::string ReceiveBytes(int from, int tag) {
    uint64_t size = 0;
    world_.recv(from, tag, &size, 1);
    std::string bytes(size, '\0');
    for (uint64_t at = 0; at < size; at += kMaxPiece) {
      world_.recv(from, tag, bytes.data() + at, PieceSize(size, at));
    }
    return bytes;
  }

  static constexpr int kCollectiveTag = kMaxTag + 1;

  std::vector<std::string> GatherToRoot(std::string bytes) {
    if (world_.rank() != 0) {
      SendBytes(0, kCollectiveTag, std::move(bytes));
      WaitForSends();
      return {};
    }
    std::vector<std::string> all;
    all.push_back(std::move(bytes));
    for (int from = 1; from < world_.size(); ++from)
      all.push_back(ReceiveBytes(from, kCollectiveTag));
    return all;
  }

  std::string ScatterFromRoot(std::vector<std::string> parts) {
    if (world_.rank() != 0) return ReceiveBytes(0, kCollectiveTag);
    if (parts.size() != static_cast<size_t>(world_.size())) {
      throw std::logic_error("Scatter needs one part for each rank");
    }
    for (int to = 1; to < world_.size(); ++to) {
      SendBytes(to, kCollectiveTag, std::move(parts[static_cast<size_t>(to)]));
    }
    WaitForSends();
    return std::move(parts[0]);
  }

  // Every rank that failed has notified every other one exactly once, or not at all: the counts are
  // exchanged so that no notice is left over for the next phase.
  void DrainAnnouncements() {
    std::vector<char> notified;
    mpi::all_gather(world_, static_cast<char>(notified_ ? 1 : 0), notified);
    int expected = 0;
    for (int other = 0; other < world_.size(); ++other) {
      if (other != world_.rank()) expected += notified[static_cast<size_t>(other)];
    }
    for (; received_ < expected; ++received_) world_.recv(mpi::any_source, kFailureTag);
    mpi::wait_all(notices_.begin(), notices_.end());
    notices_.clear();
    announced_ = notified_ = false;
    received_ = 0;
  }

  void ReapSends() {
    sends_.remove_if([](Outgoing& out) {
      return std::all_of(out.requests.begin(), out.requests.end(),
                         [](mpi::request& request) { return !request.active() || request.test(); });
    });
  }

  void WaitForSends() {
    for (Outgoing& out : sends_) {
      for (mpi::request& request : out.requests) {
        if (request.active()) request.wait();
      }
    }
    sends_.clear();
  }

  struct Outgoing {
    std::string bytes;
    uint64_t size;
    std::vector<mpi::request> requests;
  };

  mpi::communicator world_;
  std::list<Outgoing> sends_;
  std::vector<mpi::request> notices_;
  bool announced_ = false;  // somebody has failed
  bool notified_ = false;   // this rank has told the others
  int received_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> MpiCommunicator() { return std::make_unique<MpiCommunicatorImpl>(); }

}  // namespace mergepipe
