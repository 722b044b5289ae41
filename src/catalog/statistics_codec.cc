#include "catalog/statistics_codec.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace mergepipe {
namespace {

class Writer {
 public:
  explicit Writer(std::byte* out) : out_(out) {}

  template <typename Unsigned>
  void Number(Unsigned value) {
    for (size_t i = 0; i < sizeof(value); ++i) *out_++ = static_cast<std::byte>(value >> (8 * i));
  }
  void Block(const BlockStatistics& block) {
    Number(std::bit_cast<uint64_t>(block.sum_squares));
    Number(std::bit_cast<uint32_t>(block.max_abs));
    Number(block.nonzeros);
    std::memcpy(out_, block.sketch.data(), kSketchSize);
    out_ += kSketchSize;
    Number(block.hash.high);
    Number(block.hash.low);
  }
  void Block(const BaseBlockStatistics& block) {
    Number(std::bit_cast<uint64_t>(block.sum_squares));
    Number(block.hash.high);
    Number(block.hash.low);
  }

 private:
  std::byte* out_;
};

class Reader {
 public:
  explicit Reader(const std::byte* in) : in_(in) {}

  template <typename Unsigned>
  Unsigned Number() {
    Unsigned value = 0;
    for (size_t i = 0; i < sizeof(value); ++i) {
      value |= static_cast<Unsigned>(static_cast<Unsigned>(*in_++) << (8 * i));
    }
    return value;
  }
  void Block(BlockStatistics& block) {
    block.sum_squares = std::bit_cast<double>(Number<uint64_t>());
    block.max_abs = std::bit_cast<float>(Number<uint32_t>());
    block.nonzeros = Number<uint32_t>();
    std::memcpy(block.sketch.data(), in_, kSketchSize);
    in_ += kSketchSize;
    block.hash.high = Number<uint64_t>();
    block.hash.low = Number<uint64_t>();
  }
  void Block(BaseBlockStatistics& block) {
    block.sum_squares = std::bit_cast<double>(Number<uint64_t>());
    block.hash.high = Number<uint64_t>();
    block.hash.low = Number<uint64_t>();
  }

 private:
  const std::byte* in_;
};

bool IsPossibleSum(double sum) { return std::isfinite(sum) && sum >= 0; }

template <typename Block>
std::vector<std::byte> PackAll(std::span<const Block> blocks) {
  std::vector<std::byte> bytes(blocks.size() * kRecordBytes<Block>);
  Writer writer(bytes.data());
  for (const Block& block : blocks) writer.Block(block);
  return bytes;
}

template <typename Block>
bool UnpackAll(std::span<const std::byte> bytes, std::vector<Block>& blocks) {
  const size_t old_size = blocks.size();
  blocks.resize(old_size + bytes.size() / kRecordBytes<Block>);
  Reader reader(bytes.data());
  bool possible = true;
  for (Block& block : std::span(blocks).subspan(old_size)) {
    reader.Block(block);
    possible = possible && IsPossible(block);
  }
  return possible;
}

}  // namespace

bool IsPossible(const BlockStatistics& block) {
  return IsPossibleSum(block.sum_squares) && block.max_abs >= 0;
}

bool IsPossible(const BaseBlockStatistics& block) { return IsPossibleSum(block.sum_squares); }

std::vector<std::byte> Pack(std::span<const BlockStatistics> blocks) { return PackAll(blocks); }
std::vector<std::byte> Pack(std::span<const BaseBlockStatistics> blocks) { return PackAll(blocks); }

bool Unpack(std::span<const std::byte> bytes, std::vector<BlockStatistics>& blocks) {
  return UnpackAll(bytes, blocks);
}
bool Unpack(std::span<const std::byte> bytes, std::vector<BaseBlockStatistics>& blocks) {
  return UnpackAll(bytes, blocks);
}

}  // namespace mergepipe
