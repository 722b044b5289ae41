#include <cstdint>
#include <cstdlib>
#include <deque>

#include "exec/output_files.h"
#include "exec/remote_output.h"
#include "support/memory_file_system.h"

namespace {

using namespace mergepipe;

constexpr int kRanks = 2;
constexpr uint64_t kFileBytes = 64;

// Rank 0, to which rank 1 has sent messages.
class Inbox final : public Communicator {
 public:
  explicit Inbox(std::deque<std::string> messages) : messages_(std::move(messages)) {}

  Rank rank() const override { return Rank(0); }
  int size() const override { return kRanks; }
  void Broadcast(std::string&) override {}
  std::vector<std::string> Gather(std::string) override { return {}; }
  std::string Scatter(std::vector<std::string>) override { return {}; }
  void Send(Rank, int, std::string) override { ++acknowledged_; }
  std::string Receive(Rank, int) override { std::abort(); }
  std::optional<std::string> TryReceive(Rank, int) override { return std::nullopt; }
  std::optional<std::pair<Rank, std::string>> TryReceiveAny(int) override {
    if (messages_.empty()) return std::nullopt;
    std::string message = std::move(messages_.front());
    messages_.pop_front();
    return std::pair(Rank(1), std::move(message));
  }
  Status Agree(Status mine) override { return mine; }
  void AnnounceFailure() override {}
  bool FailureAnnounced() override { return false; }
  [[noreturn]] void Abort(int) override { std::abort(); }

  bool empty() const { return messages_.empty(); }
  size_t acknowledged() const { return acknowledged_; }

 private:
  std::deque<std::string> messages_;
  size_t acknowledged_ = 0;
};

// Each message is a byte for its length, and so many bytes.
std::deque<std::string> Split(const uint8_t* data, size_t size) {
  std::deque<std::string> messages;
  while (size > 0) {
    const size_t length = std::min<size_t>(data[0], size - 1);
    messages.emplace_back(reinterpret_cast<const char*>(data) + 1, length);
    data += 1 + length;
    size -= 1 + length;
  }
  return messages;
}

}  // namespace

// Whatever another rank sends for the output is written into one of its files or refused, and
// acknowledged in any case.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  MemoryFileSystem files{Bytes(1 << 20)};
  const std::vector<std::string> paths = {"/a", "/b"};
  for (const std::string& path : paths) {
    if (!WriteNewFile(files, path, std::string(kFileBytes, '\0'))) std::abort();
  }
  const std::vector<SourceFile> base;
  const std::vector<std::vector<SourceFile>> experts;
  SourceFiles sources(files, base, experts, {});
  OutputFiles output(files, paths, sources, nullptr);
  const auto messages = Split(data, size);
  Inbox inbox(messages);
  OutputReceiver receiver(inbox, output);
  while (!inbox.empty()) static_cast<void>(receiver.Service());
  if (inbox.acknowledged() != messages.size()) std::abort();
  return 0;
}
