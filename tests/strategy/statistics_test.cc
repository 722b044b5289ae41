#include <gtest/gtest.h>

#include "strategy/magnitude_statistics.h"
#include "strategy/tensor_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

constexpr uint64_t kLimits[] = {1000, 0, 1000};
constexpr MagnitudeDigit kDigit{21, 10, 0};

void Count(MagnitudeStatistics& statistics, uint32_t expert, std::span<const float> values) {
  const std::vector<float> zeros(values.size());
  statistics.Count(ExpertIndex(expert), kDigit, {DType::kF32, std::as_bytes(values)},
                   {DType::kF32, std::as_bytes(std::span(zeros))});
}

std::string Sample() {
  MagnitudeStatistics statistics(3, 1024);
  const float values[] = {0.0f, 1.0f, 1.0f, -2.0f, HUGE_VALF};
  Count(statistics, 0, values);
  const std::vector<float> many(300, 1.0f);
  Count(statistics, 2, many);
  return statistics.Serialize();
}

bool Accepts(std::string_view bytes, std::span<const uint64_t> limits = kLimits,
             size_t bins = 1024) {
  const auto parsed = MagnitudeStatistics::Parse(bins, limits, bytes);
  if (!parsed.has_value()) {
    EXPECT_EQ(parsed.error().kind(), ErrorKind::kInternal);
    return false;
  }
  EXPECT_EQ((*parsed)->Serialize(), bytes) << "what is accepted has one form";
  return true;
}

TEST(MagnitudeStatistics, ComeBackAsTheyWere) {
  EXPECT_TRUE(Accepts(Sample()));
  const auto parsed = MagnitudeStatistics::Parse(1024, kLimits, Sample());
  const auto& statistics = static_cast<const MagnitudeStatistics&>(**parsed);
  EXPECT_EQ(statistics.Total(ExpertIndex(0)), 5u);
  EXPECT_EQ(statistics.Bins(ExpertIndex(0))[0x3f800000 >> 21], 2u);
  EXPECT_TRUE(statistics.Bins(ExpertIndex(1)).empty());
  EXPECT_EQ(statistics.Total(ExpertIndex(2)), 300u);
  EXPECT_LT(Sample().size(), 40u);
}

TEST(MagnitudeStatistics, AreRefusedWhenCutOrExtended) {
  const std::string bytes = Sample();
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(Accepts(bytes.substr(0, length))) << length;
  }
  EXPECT_FALSE(Accepts(bytes + '\0'));
}

TEST(MagnitudeStatistics, AreRefusedForAnotherTensor) {
  const uint64_t two[] = {1000, 1000};
  const uint64_t few[] = {4, 0, 1000};
  const uint64_t enough[] = {5, 0, 300};
  EXPECT_FALSE(Accepts(Sample(), two));
  EXPECT_FALSE(Accepts(Sample(), few));
  EXPECT_TRUE(Accepts(Sample(), enough));
  EXPECT_FALSE(Accepts(Sample(), kLimits, 2048));
}

TEST(MagnitudeStatistics, AreRefusedWithBadNumbers) {
  const uint64_t limit[] = {~uint64_t{0}};
  const auto one_bin = [&](std::string_view rest) {
    return Accepts(std::string("\x01\x04\x01", 3) + std::string(rest), limit, 4);
  };
  EXPECT_TRUE(one_bin(std::string_view("\x00", 1)));
  EXPECT_TRUE(one_bin("\x01\x04\x07"));
  EXPECT_TRUE(one_bin("\x01\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
  EXPECT_FALSE(one_bin("\x01\x05\x07")) << "bin after the last";
  EXPECT_FALSE(one_bin(std::string_view("\x01\x00\x07", 3))) << "bin before the first";
  EXPECT_FALSE(one_bin(std::string_view("\x01\x04\x00", 3))) << "empty bin";
  EXPECT_FALSE(one_bin(std::string_view("\x01\x04\x87\x00", 4))) << "not the shortest form";
  EXPECT_FALSE(one_bin("\x01\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02")) << "65 bits";
  EXPECT_FALSE(one_bin("\x05\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01"))
      << "more bins than there are";
  EXPECT_FALSE(one_bin("\x02\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01"))
      << "trailing bytes";
  EXPECT_FALSE(one_bin("\x02\x01\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
      << "sum overflows";
}

TEST(MagnitudeStatistics, SurviveRandomDamage) {
  const std::string bytes = Sample();
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string damaged = bytes;
    for (uint64_t n = 1 + random() % 3; n > 0; --n) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    Accepts(damaged);
  }
}

TEST(MagnitudeStatistics, AppendAddsCounts) {
  MagnitudeStatistics left(2, 1024);
  MagnitudeStatistics right(2, 1024);
  MagnitudeStatistics both(2, 1024);
  const float a[] = {1.0f, 3.0f};
  const float b[] = {1.0f, -7.0f, 0.0f};
  Count(left, 0, a);
  Count(right, 0, b);
  Count(right, 1, b);
  Count(both, 0, a);
  Count(both, 0, b);
  Count(both, 1, b);
  left.Append(right);
  EXPECT_EQ(left.Serialize(), both.Serialize());
}

}  // namespace
}  // namespace mergepipe
