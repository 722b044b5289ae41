#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "strategy/threshold_search.h"

namespace {

using namespace mergepipe;

constexpr int kMostRounds = 64;
// One more than a sample is taken of, and one less.
constexpr uint64_t kSelected[] = {0, 7, 40'000, uint64_t{1} << 40};

// Takes what other ranks say they saw, round after round, as the leader of a shared tensor does:
// each message is two bytes for its length, little-endian, and so many bytes.
void Search(ThresholdSearch& search, std::string_view bytes) {
  for (int round = 0; round < kMostRounds && search.WantsRound(); ++round) {
    auto sum = search.NewStatistics();
    for (int rank = 0; rank < 2 && bytes.size() >= 2; ++rank) {
      const size_t length = std::min<size_t>(
          static_cast<uint8_t>(bytes[0]) + 256u * static_cast<uint8_t>(bytes[1]), bytes.size() - 2);
      const std::string_view message = bytes.substr(2, length);
      bytes.remove_prefix(2 + length);
      const auto next = search.ParseStatistics(message);
      if (!next) return;
      if ((*next)->Serialize() != message) std::abort();
      sum->Append(**next);
    }
    if (!search.Finish(*sum)) return;
  }
}

}  // namespace

// Any bytes are statistics of a round, and the same bytes when they are written again, or are
// refused; and whatever they count, the search ends in a threshold or an error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  RankedTensor tensor{"t", {}, {}};
  for (size_t k = 0; k < 1 + data[0] % 3; ++k) {
    const uint64_t selected = kSelected[(data[1] >> (2 * k)) % 4];
    tensor.selected.push_back(selected);
    tensor.ranks.push_back(std::max<uint64_t>(1, selected / 2));
  }
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto search = data[0] % 2 == 0 ? SearchByHistogram(tensor) : SearchBySample(tensor);
  Search(*search, bytes);
  return 0;
}
