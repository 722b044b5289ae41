#include "strategy/threshold_search.h"

#include <functional>

#include "mergepipe/kernels/convert.h"
#include "strategy/magnitude_sample.h"
#include "strategy/tensor_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

uint32_t MagnitudeOf(float delta) {
  return std::isnan(delta) ? 0 : std::bit_cast<uint32_t>(std::fabs(delta));
}

uint32_t ReferenceThreshold(std::span<const float> values, uint64_t rank) {
  std::vector<uint32_t> magnitudes;
  for (const float value : values) magnitudes.push_back(MagnitudeOf(value));
  if (rank > magnitudes.size()) return 0;
  const auto at = magnitudes.begin() + static_cast<std::ptrdiff_t>(rank - 1);
  std::nth_element(magnitudes.begin(), at, magnitudes.end(), std::greater<>());
  return *at;
}

// The elements that are kept are what counts: a threshold of 0 keeps what the smallest magnitude
// but 0 would.
void ExpectKeepsTheSame(std::span<const float> values, float threshold, uint64_t rank) {
  const auto expected = std::bit_cast<float>(ReferenceThreshold(values, rank));
  if (std::bit_cast<uint32_t>(threshold) == std::bit_cast<uint32_t>(expected)) return;
  for (const float value : values) {
    if (std::isnan(value) || value == 0) continue;
    ASSERT_EQ(std::fabs(value) >= threshold, std::fabs(value) >= expected)
        << value << ' ' << threshold << " instead of " << expected << " at rank " << rank;
  }
}

int Search(const TensorDeltas& tensor, ThresholdSearch& search, size_t parts) {
  int rounds = 0;
  for (; search.WantsRound(); ++rounds) {
    auto total = search.NewStatistics();
    size_t block = 0;
    for (size_t part = 1; part <= parts; ++part) {
      auto statistics = search.NewStatistics();
      for (; block < tensor.blocks() * part / parts; ++block)
        search.Observe(BlockOf(tensor, block), *statistics);
      const std::string bytes = statistics->Serialize();
      auto parsed = search.ParseStatistics(bytes);
      EXPECT_TRUE(parsed.has_value());
      if (!parsed) return rounds;
      EXPECT_EQ((*parsed)->Serialize(), bytes);
      total->Append(**parsed);
    }
    const Status finished = search.Finish(*total);
    EXPECT_TRUE(finished.has_value()) << finished.error().ToString();
    if (!finished) return rounds;
    EXPECT_LT(rounds, 8);
  }
  return rounds;
}

std::vector<float> Fill(size_t size, const std::function<float(size_t, uint64_t)>& value) {
  std::mt19937_64 random(size);
  std::vector<float> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = value(i, random());
  return values;
}

float Normal(uint64_t draw) {
  const double u = static_cast<double>(draw >> 11) * 0x1p-53 + 0x1p-54;
  return static_cast<float>(std::sqrt(-2 * std::log(u)) *
                            std::cos(6.283185307 * static_cast<double>(draw & 0x7ff) / 2048));
}

float OfBits(uint64_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }

struct Shape {
  const char* name;
  std::function<float(size_t, uint64_t)> value;
};

const std::vector<Shape>& Shapes() {
  static const std::vector<Shape> kShapes = {
      {"normal", [](size_t, uint64_t draw) { return 1e-3f * Normal(draw); }},
      {"few values", [](size_t, uint64_t draw) { return static_cast<float>(draw % 7) * 0x1p-10f; }},
      {"all equal", [](size_t, uint64_t draw) { return draw % 2 ? 0.25f : -0.25f; }},
      {"all zero", [](size_t, uint64_t draw) { return draw % 2 ? 0.0f : -0.0f; }},
      {"mostly zero", [](size_t, uint64_t draw) { return draw % 100 ? 0.0f : Normal(draw); }},
      {"any bits", [](size_t, uint64_t draw) { return OfBits(draw); }},
      {"neighbours", [](size_t, uint64_t draw) { return OfBits(0x3f7fff00 + draw % 512); }},
      {"denormals", [](size_t, uint64_t draw) { return OfBits(draw % 0x800000); }},
      {"infinite", [](size_t, uint64_t draw) { return draw % 2 ? HUGE_VALF : -HUGE_VALF; }},
      {"half infinite", [](size_t, uint64_t draw) { return draw % 2 ? HUGE_VALF : Normal(draw); }},
      {"all nan", [](size_t, uint64_t) { return std::nanf(""); }},
      {"half nan", [](size_t, uint64_t draw) { return draw % 2 ? std::nanf("") : Normal(draw); }},
      {"ascending", [](size_t i, uint64_t) { return static_cast<float>(i) * 1e-4f; }},
      {"descending", [](size_t i, uint64_t) { return 1e3f - static_cast<float>(i) * 1e-3f; }},
      // What a sample sees of it is not what there is.
      {"large at the start",
       [](size_t i, uint64_t draw) { return i < 4000 ? 9.0f : OfBits(0x3a000000 + draw % 4); }},
      {"periodic", [](size_t i, uint64_t) { return i % 1024 < 512 ? 1.0f : 0.5f; }},
  };
  return kShapes;
}

// Sizes below and above what a sample takes whole.
constexpr size_t kSizes[] = {1, 2, 100, 32'768, 32'769, 150'000};

TEST(ThresholdSearch, AgreesWithNthElement) {
  for (const Shape& shape : Shapes()) {
    for (const size_t size : kSizes) {
      const TensorDeltas tensor{size / 7 + 1, {Fill(size, shape.value)}, {}};
      TensorDeltas whole = tensor;
      whole.selected.assign(1, std::vector<bool>(tensor.blocks(), true));
      for (const double share : {1e-9, 1e-3, 0.1, 0.4, 0.6, 0.6001, 0.999, 1.0}) {
        const uint64_t rank =
            std::max<uint64_t>(1, static_cast<uint64_t>(share * static_cast<double>(size)));
        SCOPED_TRACE(std::string(shape.name) + ' ' + std::to_string(size) + " at rank " +
                     std::to_string(rank));
        const auto held = SearchBySample({"w", {size}, {rank}});
        EXPECT_LE(Search(whole, *held, 1 + size % 3), 6);
        ExpectKeepsTheSame(whole.deltas[0], held->Threshold(ExpertIndex(0)), rank);
        if (size > 100'000) continue;
        const auto reread = SearchByHistogram({"w", {size}, {rank}});
        EXPECT_EQ(Search(whole, *reread, 1 + size % 3), kHistogramRounds);
        ExpectKeepsTheSame(whole.deltas[0], reread->Threshold(ExpertIndex(0)), rank);
      }
    }
  }
}

// Two rounds are what speed depends on: deltas of 16-bit types have few values.
TEST(ThresholdSearch, NeedsOnePassAfterTheSampleForDeltasOfBf16) {
  const size_t size = 300'000;
  auto values = Fill(size, [](size_t, uint64_t draw) { return 1e-3f * Normal(draw); });
  std::vector<std::byte> stored(2 * size);
  FromFloat(DType::kBF16, values, stored);
  ToFloat(DType::kBF16, stored, values);
  TensorDeltas tensor{10'000, {values}, {std::vector<bool>(30, true)}};
  for (const double share : {0.05, 0.2, 0.5, 0.6, 0.9}) {
    const auto rank = static_cast<uint64_t>(share * static_cast<double>(size));
    const auto search = SearchBySample({"w", {size}, {rank}});
    EXPECT_EQ(Search(tensor, *search, 1), 2);
    EXPECT_EQ(std::bit_cast<uint32_t>(search->Threshold(ExpertIndex(0))),
              ReferenceThreshold(values, rank));
  }
}

TEST(ThresholdSearch, SurvivesASampleThatMisleads) {
  // All of the sample is 1, all else is smaller or larger.
  const size_t size = 100'000;
  const SamplePlan plan(size, uint64_t{1} << 14);
  ASSERT_FALSE(plan.complete());
  TensorDeltas tensor{size, {std::vector<float>(size)}, {{true}}};
  auto& values = tensor.deltas[0];
  for (size_t i = 0; i < size; ++i) values[i] = static_cast<float>(i + 2);
  std::vector<uint32_t> sample;
  plan.Take(BlockOf(tensor, 0), 0, 0, sample);
  for (const uint32_t magnitude : sample) {
    values[static_cast<size_t>(std::bit_cast<float>(magnitude)) - 2] = 1.0f;
  }
  using Place = std::function<float(size_t)>;
  const Place larger = [](size_t i) { return 2.0f + static_cast<float>(i) * 1e-6f; };
  const Place smaller = [](size_t i) { return 0.1f + static_cast<float>(i) * 1e-6f; };
  const Place next_above = [](size_t) { return std::nextafter(1.0f, 2.0f); };
  const Place next_below = [](size_t) { return std::nextafter(1.0f, 0.0f); };
  const std::vector<bool> sampled = [&] {
    std::vector<bool> is_one;
    for (const float value : values) is_one.push_back(value == 1.0f);
    return is_one;
  }();
  for (const Place& place : {larger, smaller, next_above, next_below}) {
    for (size_t i = 0; i < size; ++i) {
      if (!sampled[i]) values[i] = place(i);
    }
    for (const uint64_t rank : {1, 5000, 40'000, 60'000, 99'999}) {
      const auto search = SearchBySample({"w", {size}, {rank}});
      EXPECT_LE(Search(tensor, *search, 1), 6);
      EXPECT_EQ(std::bit_cast<uint32_t>(search->Threshold(ExpertIndex(0))),
                ReferenceThreshold(values, rank));
    }
  }
}

TEST(ThresholdSearch, GoesWithoutASampleThatIsTooLong) {
  const size_t size = 1'200'000;
  const uint64_t selected = 100'000;
  const SamplePlan plan(selected, uint64_t{1} << 14);
  TensorDeltas tensor{8, {Fill(size, [](size_t, uint64_t draw) { return Normal(draw); })}, {{}}};
  std::vector<float> seen;
  for (size_t b = 0; b < tensor.blocks(); ++b) {
    tensor.selected[0].push_back(true);
    std::vector<uint32_t> sample;
    if (seen.size() < selected) plan.Take(BlockOf(tensor, b), 0, 0, sample);
    tensor.selected[0][b] = sample.size() == 8;
    for (const uint32_t magnitude : sample) {
      if (sample.size() == 8) seen.push_back(std::bit_cast<float>(magnitude));
    }
  }
  ASSERT_EQ(seen.size(), selected);
  const auto search = SearchBySample({"w", {selected}, {60'000}});
  const auto statistics = search->NewStatistics();
  for (size_t b = 0; b < tensor.blocks(); ++b) search->Observe(BlockOf(tensor, b), *statistics);
  EXPECT_LT(statistics->Serialize().size(), 16u);
  EXPECT_LE(Search(tensor, *search, 3), 4);
  EXPECT_EQ(std::bit_cast<uint32_t>(search->Threshold(ExpertIndex(0))),
            ReferenceThreshold(seen, 60'000));
}

TEST(ThresholdSearch, DoesNotDependOnBlocksAndParts) {
  const size_t size = 120'000;
  const auto values = Fill(size, [](size_t, uint64_t draw) { return Normal(draw); });
  std::string first;
  for (const size_t block_size : {7, 1000, 120'000}) {
    TensorDeltas tensor{block_size, {values}, {}};
    tensor.selected.assign(1, std::vector<bool>(tensor.blocks(), true));
    const auto search = SearchBySample({"w", {size}, {50'000}});
    const auto statistics = search->NewStatistics();
    for (size_t b = 0; b < tensor.blocks(); ++b) search->Observe(BlockOf(tensor, b), *statistics);
    if (first.empty()) first = statistics->Serialize();
    EXPECT_EQ(statistics->Serialize(), first);
  }
}

TEST(ThresholdSearch, RefusesDamagedStatistics) {
  const size_t size = 50'000;
  TensorDeltas tensor{
      size, {Fill(size, [](size_t, uint64_t draw) { return Normal(draw); })}, {{true}}};
  const auto search = SearchBySample({"w", {size}, {20'000}});
  std::mt19937_64 random(3);
  for (int round = 0; round < 2; ++round) {
    const auto statistics = search->NewStatistics();
    search->Observe(BlockOf(tensor, 0), *statistics);
    const std::string bytes = statistics->Serialize();
    for (size_t length = 0; length < bytes.size(); length += 1 + bytes.size() / 300) {
      EXPECT_FALSE(search->ParseStatistics(bytes.substr(0, length)).has_value()) << length;
    }
    EXPECT_FALSE(search->ParseStatistics(bytes + '\0').has_value());
    for (int i = 0; i < 3000; ++i) {
      std::string damaged = bytes;
      damaged[i < 1000 ? random() % 24 : random() % damaged.size()] = static_cast<char>(random());
      const auto parsed = search->ParseStatistics(damaged);
      if (!parsed) continue;
      ASSERT_EQ((*parsed)->Serialize(), damaged) << "what is accepted has one form";
    }
    const auto twice = search->NewStatistics();
    search->Observe(BlockOf(tensor, 0), *twice);
    search->Observe(BlockOf(tensor, 0), *twice);
    EXPECT_FALSE(search->Finish(*twice).has_value());
    EXPECT_FALSE(search->ParseStatistics(twice->Serialize()).has_value());
    ASSERT_TRUE(search->Finish(*statistics).has_value());
  }
}

TEST(SamplePlan, TakesAboutWhatIsWanted) {
  for (const size_t size : {33'000, 100'000, 1'000'000}) {
    const SamplePlan plan(size, uint64_t{1} << 14);
    const TensorDeltas tensor{size, {std::vector<float>(size, 1.0f)}, {{true}}};
    std::vector<uint32_t> sample;
    plan.Take(BlockOf(tensor, 0), 0, 0, sample);
    EXPECT_NEAR(static_cast<double>(sample.size()), 0x1p14, 700) << size;
  }
}

TEST(BlockMagnitude, AgreesWithNthElement) {
  for (const Shape& shape : Shapes()) {
    for (const size_t size : {1, 50, 8192, 8193, 40'000}) {
      const TensorDeltas tensor{size, {Fill(size, shape.value)}, {{true}}};
      const BlockDeltas block = BlockOf(tensor, 0);
      for (const double share : {0.0, 0.01, 0.5, 0.6, 0.99, 1.0}) {
        const uint64_t rank = 1 + static_cast<uint64_t>(share * static_cast<double>(size));
        ASSERT_EQ(BlockMagnitude(block, 0, rank), ReferenceThreshold(tensor.deltas[0], rank))
            << shape.name << ' ' << size << ' ' << rank;
      }
    }
  }
}

}  // namespace
}  // namespace mergepipe
