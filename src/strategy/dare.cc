#include <fmt/format.h>

#include <array>
#include <charconv>

#include "mergepipe/base/hash.h"
#include "mergepipe/kernels/avg.h"
#include "mergepipe/kernels/dare.h"
#include "mergepipe/kernels/philox.h"
#include "strategy/block_local.h"
#include "strategy/coefficients.h"
#include "strategy/option_checks.h"
#include "strategy/rows.h"
#include "strategy/tiles.h"

namespace mergepipe {
namespace {

// The first 8 bytes of SHA-256 of the tensor's label, as a little-endian number, low word first.
PhiloxKey TensorKey(uint64_t seed, std::string_view tensor) {
  const std::string hex = Sha256Hex(fmt::format("mergepipe.dare/1\n{}\n{}", seed, tensor));
  PhiloxKey key{};
  for (size_t i = 0; i < 8; ++i) {
    uint32_t byte = 0;
    std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, byte, 16);
    key[i / 4] |= byte << (8 * (i % 4));
  }
  return key;
}

uint64_t DrawLimit(double density) { return static_cast<uint64_t>(density * 0x1p32); }

class DareMerge final : public BlockLocalMerge {
 public:
  DareMerge(const StrategyOptions& options, std::string_view tensor)
      : coefficients_(Coefficients(options)),
        lambda_(static_cast<float>(options.lambda)),
        keep_{DrawLimit(options.density), static_cast<float>(options.density)},
        key_(TensorKey(options.seed, tensor)) {}

  void Apply(const BlockDeltas& block, TileSink& sink) const override {
    ForEachMergedTile(block.size(), sink, [&](uint64_t begin, std::span<float> merged) {
      ApplyTile(block, begin, merged);
    });
  }

 private:
  void ApplyTile(const BlockDeltas& block, uint64_t begin, std::span<float> merged) const {
    alignas(64) std::array<uint32_t, kTile> storage;
    const auto draws = std::span(storage).first(merged.size());
    const StoredElements base = Part(block.base(), begin, merged.size());
    std::ranges::fill(merged, 0.0f);
    for (size_t slot = 0; slot < block.experts().size(); ++slot) {
      const uint32_t expert = block.experts()[slot].value;
      DrawElements(key_, expert, block.first_element() + begin, draws);
      AddRescaled(keep_, draws, coefficients_[expert],
                  Part(block.stored(slot), begin, merged.size()), base, merged);
    }
    Scale(lambda_, merged);
  }

  std::vector<float> coefficients_;
  float lambda_;
  DareKeep keep_;
  PhiloxKey key_;
};

class Dare final : public Strategy {
 public:
  explicit Dare(StrategyOptions options) : options_(std::move(options)) {}

  int ObservationRounds() const override { return 0; }
  uint64_t StatisticsBytes() const override { return 0; }
  std::unique_ptr<TensorMerge> StartTensor(const TensorContext& tensor) const override {
    return std::make_unique<DareMerge>(options_, tensor.name);
  }

 private:
  StrategyOptions options_;
};

Status Check(const StrategyOptions& options) {
  ProblemList problems;
  CheckDensity(options, problems);
  if (options.density > 0.0 && DrawLimit(std::min(options.density, 1.0)) == 0) {
    problems.Add("--density",
                 fmt::format("{} is below 2^-32: nothing would be kept", options.density),
                 "give a larger share");
  }
  CheckCoefficients(options, problems);
  CheckLambda(options, problems);
  return problems.ToStatus(ErrorKind::kUsage);
}

}  // namespace

constinit const StrategyRow kDareRow = {
    .name = "dare",
    .help = "randomly drop deltas, rescale the kept ones, then the weighted mean",
    .default_density = 0.5,
    .check = Check,
    .rounds = [](const StrategyOptions&) { return 0; },
    .largest_coefficients =
        [](const StrategyOptions& options) -> std::optional<std::vector<double>> {
      return LargestCoefficients(options, 1.0 / options.density);  // a kept delta is divided by it
    },
    .make = [](const StrategyOptions& options) -> std::unique_ptr<Strategy> {
      return std::make_unique<Dare>(options);
    },
};

}  // namespace mergepipe
