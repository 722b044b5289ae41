#include "run/gather.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "mergepipe/base/text.h"

namespace mergepipe {
namespace {

constexpr const char* kTokenName = ".mergepipe-token";
constexpr uint64_t kMaxTokenBytes = 1024;
// A network filesystem may believe for a moment that a new file is not there.
constexpr int kLooks = 10;
constexpr std::chrono::milliseconds kBetweenLooks{200};

std::string RandomToken() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
}

bool Sees(FileSystem& files, const std::string& path, const std::string& token) {
  for (int look = 0; look < kLooks; ++look) {
    const auto text = ReadSmallFile(files, path, kMaxTokenBytes);
    if (text && *text == token) return true;
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return false;
}

// "<path>\n<token>" from rank 0 to all.
std::pair<std::string, std::string> ShareToken(Communicator& communicator, const std::string& path,
                                               const std::string& token) {
  std::string message = path + '\n' + token;
  communicator.Broadcast(message);
  const size_t line = message.rfind('\n');
  return {message.substr(0, line), message.substr(line + 1)};
}

// On rank 0: the hosts of the ranks that said no.
std::vector<std::string> BlindHosts(const std::vector<std::string>& answers) {
  std::vector<std::string> hosts;
  for (const std::string& answer : answers) {
    if (!answer.empty() && std::ranges::find(hosts, answer) == hosts.end()) hosts.push_back(answer);
  }
  return hosts;
}

std::string Listed(const std::vector<std::string>& hosts) {
  std::string text;
  for (const std::string& host : hosts) text += (text.empty() ? "" : ", ") + host;
  return text;
}

Result<std::vector<std::string>> LookEverywhere(FileSystem& files, Communicator& communicator,
                                                const std::string& staging) {
  const std::string mine = JoinPath(staging, kTokenName);
  const std::string made = communicator.is_root() ? RandomToken() : "";
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(communicator.is_root() ? WriteNewFile(files, mine, made) : Status()));
  const auto [path, token] = ShareToken(communicator, mine, made);
  const std::vector<std::string> answers =
      communicator.Gather(Sees(files, path, token) ? "" : HostName());
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(communicator.is_root() ? files.Remove(mine) : Status()));
  return BlindHosts(answers);
}

}  // namespace

Result<Gathering> DecideGathering(FileSystem& files, Communicator& communicator, GatherMode mode,
                                  const std::string& staging) {
  Gathering gathering;
  if (communicator.size() == 1) return gathering;
  if (mode == GatherMode::kRoot) {
    gathering.to_root = true;
    return gathering;
  }
  MERGEPIPE_ASSIGN_OR_RETURN(gathering.blind_hosts, LookEverywhere(files, communicator, staging));
  Status status;
  if (mode == GatherMode::kShared && !gathering.blind_hosts.empty()) {
    status = Fail(ErrorKind::kUsage, "--gather",
                  "the output's directory " + Quote(ParentPath(staging)) +
                      " cannot be seen on every host: not on " + Listed(gathering.blind_hosts),
                  "choose an --out on a filesystem that all hosts share, or pass --gather root");
  }
  MERGEPIPE_RETURN_IF_ERROR(communicator.Agree(status));
  std::string decision = gathering.blind_hosts.empty() ? "shared" : "root";
  communicator.Broadcast(decision);
  gathering.to_root = decision == "root";
  return gathering;
}

}  // namespace mergepipe
