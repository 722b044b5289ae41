#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"
#include "mergepipe/format/block_statistics.h"

namespace mergepipe::test {

/// Random values for the fields of what travels between ranks.
class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}
  uint64_t Number() { return random_() >> (random_() % 64); }
  uint32_t Small() { return static_cast<uint32_t>(random_() % 5); }
  int Int() { return static_cast<int>(Small()) - 1; }
  bool Coin() { return random_() % 2 == 0; }
  double Real() { return static_cast<double>(static_cast<int64_t>(random_())) / 3; }
  std::string Text() {
    return std::string(Small(), 'x') + std::string("\0\xff", 2) + std::to_string(Small());
  }
  DType Type() { return static_cast<DType>(random_() % 13); }
  Hash128 Hash() { return {random_(), random_()}; }
  NonFiniteCount Count() { return {Number(), Number()}; }
  SourceFile File() { return {Text(), Number(), -static_cast<int64_t>(Number() >> 1), Number()}; }
  SourceTensor Source() { return {Coin(), Type(), Small(), Number()}; }
  BlockSet Blocks() {
    BlockSet blocks(40 * Small() + Small());
    for (uint64_t b = 0; b < blocks.size(); ++b) {
      if (Coin()) blocks.Add(BlockIndex(b));
    }
    return blocks;
  }
  BlockStatistics Block() {
    BlockStatistics block{Real(), static_cast<float>(Real()), Small(), {}, Hash()};
    for (int8_t& number : block.sketch) number = static_cast<int8_t>(random_());
    return block;
  }
  template <typename Make>
  auto Some(Make make) {
    std::vector<decltype(make())> all;
    for (uint32_t i = Small(); i > 0; --i) all.push_back(make());
    return all;
  }

  PartReport Report() {
    PartReport part;
    part.tensor = Small();
    part.begin = Number();
    part.block_hashes = Some([&] { return Hash(); });
    part.base_hashes = Some([&] { return Hash(); });
    part.read_hashes = Some([&] { return Some([&] { return Hash(); }); });
    part.inputs = Some([&] { return Count(); });
    part.made = Count();
    part.differs = Some([&] { return static_cast<uint8_t>(Small()); });
    return part;
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace mergepipe::test
