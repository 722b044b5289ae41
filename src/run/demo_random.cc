#include "run/demo_random.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "mergepipe/base/hash.h"

namespace mergepipe {
namespace {

constexpr int32_t kMean = 2 * 65535;
// 1 / the standard deviation of the sum: sqrt(4 * (2^32 - 1) / 12) = 37837.2.
constexpr float kScale = 1.0f / 37837.227f;

constexpr uint32_t HalvesSum(uint32_t draw) { return (draw & 0xffff) + (draw >> 16); }

}  // namespace

RandomStream::RandomStream(uint64_t seed, uint32_t model, std::string_view part,
                           std::string_view tensor) {
  const uint64_t hash = HashText(fmt::format("{}/{}/{}/{}", seed, model, part, tensor)).low;
  key_ = {static_cast<uint32_t>(hash), static_cast<uint32_t>(hash >> 32)};
}

uint32_t RandomStream::Draw16(uint64_t index) const {
  uint32_t draw = 0;
  DrawElements(key_, 0, index, std::span(&draw, 1));
  return draw >> 16;
}

void RandomStream::FillNormal(uint64_t first, std::span<float> out) const {
  std::array<uint32_t, 1024> draws;  // two an element
  while (!out.empty()) {
    const size_t count = std::min(out.size(), draws.size() / 2);
    DrawElements(key_, 0, 2 * first, std::span(draws).first(2 * count));
    for (size_t i = 0; i < count; ++i) {
      const auto sum = static_cast<int32_t>(HalvesSum(draws[2 * i]) + HalvesSum(draws[2 * i + 1]));
      out[i] = static_cast<float>(sum - kMean) * kScale;
    }
    first += count;
    out = out.subspan(count);
  }
}

}  // namespace mergepipe
