#include "catalog/statistics_codec.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace {

template <typename Block>
void Check(std::span<const std::byte> bytes) {
  bytes =
      bytes.first(bytes.size() / mergepipe::kRecordBytes<Block> * mergepipe::kRecordBytes<Block>);
  std::vector<Block> blocks;
  const bool possible = mergepipe::Unpack(bytes, blocks);
  const auto each = [](const Block& block) { return mergepipe::IsPossible(block); };
  if (possible != std::all_of(blocks.begin(), blocks.end(), each)) std::abort();
  const auto packed = mergepipe::Pack(std::span<const Block>(blocks));
  if (!std::equal(packed.begin(), packed.end(), bytes.begin(), bytes.end())) std::abort();
}

}  // namespace

// Any bytes unpack to records that pack to the same bytes, and only possible ones are called so.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  Check<mergepipe::BlockStatistics>(bytes);
  Check<mergepipe::BaseBlockStatistics>(bytes);
  return 0;
}
