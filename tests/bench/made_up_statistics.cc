#include "bench/made_up_statistics.h"

#include <cmath>

namespace mergepipe::test {

Result<std::vector<BlockStatistics>> MadeUpStatistics::OfExpert(uint32_t expert, uint32_t tensor) {
  std::vector<BlockStatistics> blocks(Blocks(tensor));
  Reset(expert + 1, tensor);
  for (BlockStatistics& block : blocks) Make(block);
  return blocks;
}

Result<std::vector<BaseBlockStatistics>> MadeUpStatistics::OfBase(uint32_t tensor) {
  std::vector<BaseBlockStatistics> blocks(Blocks(tensor));
  Reset(0, tensor);
  for (BaseBlockStatistics& block : blocks) block = {256.0 + Unit(), {Next(), Next()}};
  return blocks;
}

uint64_t MadeUpStatistics::Blocks(uint32_t tensor) const {
  return CeilDivide(family_.base.layout.tensors[tensor].elements(), family_.options.block_size);
}

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
uint64_t MadeUpStatistics::Next() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

double MadeUpStatistics::Unit() { return std::ldexp(static_cast<double>(Next() >> 11), -53); }

void MadeUpStatistics::Make(BlockStatistics& block) {
  block.hash = {Next(), Next()};
  if (block.hash.low % 64 == 0) return;
  const double unit = Unit();
  block.sum_squares = 1e-4 + unit * unit * unit;
  block.max_abs = static_cast<float>(unit);
  block.nonzeros = 1;
  for (size_t i = 0; i < kSketchSize; i += 8) {
    const uint64_t bits = Next();
    for (size_t j = 0; j < 8; ++j)
      block.sketch[i + j] = static_cast<int8_t>(static_cast<int>(bits >> (8 * j) & 0xff) - 128);
  }
}

}  // namespace mergepipe::test
