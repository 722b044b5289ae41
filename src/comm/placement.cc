#include "mergepipe/comm/placement.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cereal/archives/portable_binary.hpp>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace mergepipe {
namespace {

// Machines with more CPUs than one cpu_set_t has room for exist.
constexpr size_t kCpuSets = 16;

std::vector<int> CoresOfThisProcess() {
  std::array<cpu_set_t, kCpuSets> mask{};
  if (::sched_getaffinity(0, sizeof(mask), mask.data()) != 0) return {};
  std::vector<int> cores;
  for (size_t core = 0; core < kCpuSets * CPU_SETSIZE; ++core) {
    if (CPU_ISSET_S(core, sizeof(mask), mask.data())) cores.push_back(static_cast<int>(core));
  }
  return cores;
}

// Reads a length and refuses one that cannot be in `bytes`, before anything is allocated for it.
uint64_t LoadSize(cereal::PortableBinaryInputArchive& archive, const std::string& bytes) {
  uint64_t size = 0;
  archive(size);
  if (size > bytes.size()) throw std::length_error("a length is over the message's");
  return size;
}

int LoadInt(cereal::PortableBinaryInputArchive& archive) {
  int32_t value = 0;
  archive(value);
  return value;
}

RankPlacement Load(cereal::PortableBinaryInputArchive& archive, const std::string& bytes) {
  RankPlacement placement;
  placement.host.resize(LoadSize(archive, bytes));
  archive(cereal::binary_data(placement.host.data(), placement.host.size()));
  placement.threads = LoadInt(archive);
  placement.cores.resize(LoadSize(archive, bytes));
  for (int& core : placement.cores) core = LoadInt(archive);
  placement.host_cores = LoadInt(archive);
  return placement;
}

Result<std::vector<RankPlacement>> ParseAll(const std::vector<std::string>& all) {
  std::vector<RankPlacement> placements;
  for (const std::string& bytes : all) {
    MERGEPIPE_ASSIGN_OR_RETURN(RankPlacement placement, ParsePlacement(bytes));
    placements.push_back(std::move(placement));
  }
  return placements;
}

}  // namespace

RankPlacement PlacementOfThisRank(int threads) {
  RankPlacement placement;
  placement.host = HostName();
  placement.threads = threads;
  placement.cores = CoresOfThisProcess();
  placement.host_cores = static_cast<int>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  return placement;
}

Result<std::vector<RankPlacement>> GatherPlacements(Communicator& communicator, int threads) {
  auto placements = ParseAll(communicator.Gather(SerializePlacement(PlacementOfThisRank(threads))));
  MERGEPIPE_RETURN_IF_ERROR(
      communicator.Agree(placements ? Status() : tl::unexpected(placements.error())));
  return placements;
}

std::string SerializePlacement(const RankPlacement& placement) {
  std::ostringstream out;
  {
    cereal::PortableBinaryOutputArchive archive(out);
    archive(uint64_t{placement.host.size()});
    archive(cereal::binary_data(placement.host.data(), placement.host.size()));
    archive(int32_t{placement.threads}, uint64_t{placement.cores.size()});
    for (const int core : placement.cores) archive(int32_t{core});
    archive(int32_t{placement.host_cores});
  }
  return std::move(out).str();
}

Result<RankPlacement> ParsePlacement(const std::string& bytes) {
  std::string why = "bytes are left over";
  try {
    std::istringstream in(bytes);
    cereal::PortableBinaryInputArchive archive(in);
    RankPlacement placement = Load(archive, bytes);
    if (in.peek() == std::istringstream::traits_type::eof()) return placement;
  } catch (const std::exception& e) {
    why = e.what();
  }
  return Fail(ErrorKind::kInternal, "MPI", "an unreadable placement arrived: " + why);
}

}  // namespace mergepipe
