#include "plan/scoring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "plan/plan_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

using Vector = std::vector<double>;
using Sketch = std::array<int8_t, kSketchSize>;

std::vector<double> Score(std::string_view scoring, const Vector& weights,
                          const std::vector<KnownDelta>& deltas, uint64_t block = 0,
                          std::string_view tensor = "t") {
  const auto row = FindScoring(scoring);
  EXPECT_TRUE(row.has_value()) << scoring;
  std::vector<double> scores(deltas.size(), -7);
  (*row)->score({HashText(tensor), block}, weights, deltas, scores);
  return scores;
}

// A delta whose direction is its sketch; the number of elements does not matter to the direction.
KnownDelta Along(const Sketch& sketch, double norm) {
  return {StatisticsKind::kExact, norm * norm, static_cast<float>(norm), 100, &sketch};
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The deltas themselves, as vectors: |D| times the sketch's direction.
Vector DeltaOf(const KnownDelta& known) {
  Vector delta(known.sketch->begin(), known.sketch->end());
  const double length = std::sqrt(Dot(delta, delta));
  for (double& value : delta) value *= length > 0 ? std::sqrt(known.sum_squares) / length : 0;
  return delta;
}

// The formula of the design on the vectors.
Vector PlainL2Cos(const Vector& weights, const std::vector<KnownDelta>& deltas) {
  Vector sum(kSketchSize);
  for (size_t k = 0; k < deltas.size(); ++k) {
    const Vector delta = DeltaOf(deltas[k]);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += weights[k] * delta[i];
  }
  Vector scores;
  for (const KnownDelta& known : deltas) {
    const Vector delta = DeltaOf(known);
    const double lengths = std::sqrt(Dot(delta, delta) * Dot(sum, sum));
    const double cosine = lengths > 0 ? Dot(delta, sum) / lengths : 0;
    scores.push_back(Dot(delta, delta) * (1 + cosine) / 2);
  }
  return scores;
}

Sketch RandomSketch(std::mt19937_64& random) {
  Sketch sketch;
  for (int8_t& value : sketch) value = static_cast<int8_t>(random() % 255 - 127);
  return sketch;
}

Sketch Negative(Sketch sketch) {
  for (int8_t& value : sketch) value = static_cast<int8_t>(-value);
  return sketch;
}

Sketch Axis(size_t axis, int8_t value = 127) {
  Sketch sketch{};
  sketch[axis] = value;
  return sketch;
}

TEST(Scoring, L2CosIsTheFormulaOnKnownDirections) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) {
    const size_t experts = 1 + random() % 6;
    std::vector<Sketch> sketches;
    for (size_t k = 0; k < experts; ++k) sketches.push_back(RandomSketch(random));
    std::vector<KnownDelta> deltas;
    Vector weights;
    for (size_t k = 0; k < experts; ++k) {
      deltas.push_back(Along(
          sketches[k], std::ldexp(1.0 + static_cast<double>(k), static_cast<int>(random() % 20))));
      weights.push_back(static_cast<double>(random() % 5) - 1);  // 0 and negative ones too
    }
    const auto scores = Score("l2cos", weights, deltas);
    const Vector plain = PlainL2Cos(weights, deltas);
    for (size_t k = 0; k < experts; ++k)
      ASSERT_NEAR(scores[k], plain[k], 1e-9 * deltas[k].sum_squares) << "experts " << experts;
  }
}

TEST(Scoring, L2CosOfOneExpertIsL2) {
  std::mt19937_64 random(2);
  const Sketch sketch = RandomSketch(random);
  const std::vector<KnownDelta> deltas = {Along(sketch, 3)};
  EXPECT_NEAR(Score("l2cos", {1}, deltas)[0], 9, 1e-12);
  EXPECT_NEAR(Score("l2cos", {0.01}, deltas)[0], 9, 1e-12);
  EXPECT_NEAR(Score("l2cos", {-1}, deltas)[0], 0, 1e-12);  // against the sum, which is -D
  EXPECT_EQ(Score("l2cos", {0}, deltas)[0], 4.5);          // there is no sum
}

TEST(Scoring, L2CosGivesNothingToTheWeakerOfOpposites) {
  std::mt19937_64 random(3);
  const Sketch sketch = RandomSketch(random);
  const Sketch opposite = Negative(sketch);
  const auto scores = Score("l2cos", {1, 1}, {Along(sketch, 3), Along(opposite, 2)});
  EXPECT_NEAR(scores[0], 9, 1e-12);
  EXPECT_NEAR(scores[1], 0, 1e-12);
  EXPECT_GE(scores[1], 0);
}

TEST(Scoring, L2CosWeighsTheOthers) {
  const Sketch x = Axis(0);
  const Sketch y = Axis(5, -3);
  // The sum is 3 * 1 along x and 1 * 4 along y: cosines 3/5 and 4/5.
  const auto scores = Score("l2cos", {3, 1}, {Along(x, 1), Along(y, 4)});
  EXPECT_NEAR(scores[0], 1 * (1 + 0.6) / 2, 1e-12);
  EXPECT_NEAR(scores[1], 16 * (1 + 0.8) / 2, 1e-12);
}

TEST(Scoring, L2CosIsNeverNegativeNorNaN) {
  std::mt19937_64 random(4);
  constexpr double kNorms[] = {0, 1e-45, 1e-20, 1, 1e20, 1e41};
  for (int i = 0; i < 1000; ++i) {
    const Sketch a = random() % 4 == 0 ? Sketch{} : RandomSketch(random);
    const Sketch b = random() % 2 == 0 ? Negative(a) : RandomSketch(random);
    const std::vector<KnownDelta> deltas = {Along(a, kNorms[random() % 6]),
                                            Along(b, kNorms[random() % 6]),
                                            Along(a, kNorms[random() % 6])};
    const Vector weights = {1, random() % 2 == 0 ? 3e38 : -1e-45, -1};
    for (const double score : Score("l2cos", weights, deltas)) ASSERT_GE(score, 0.0);
  }
}

TEST(Scoring, SketchesOfBlocksAndOfSamplesAreAtRightAngles) {
  const Sketch x = Axis(0);
  std::vector<KnownDelta> deltas = {Along(x, 3), Along(x, 4)};
  EXPECT_NEAR(Score("l2cos", {1, 1}, deltas)[0], 9, 1e-12);
  deltas[1].kind = StatisticsKind::kProbe;
  EXPECT_NEAR(Score("l2cos", {1, 1}, deltas)[0], 9 * (1 + 0.6) / 2, 1e-12);
  EXPECT_NEAR(Score("l2cos", {1, 1}, deltas)[1], 16 * (1 + 0.8) / 2, 1e-12);
}

TEST(Scoring, AnExpertThatLacksTheTensorChangesNothing) {
  std::mt19937_64 random(5);
  const Sketch a = RandomSketch(random);
  const Sketch b = RandomSketch(random);
  const auto two = Score("l2cos", {1, 2}, {Along(a, 3), Along(b, 2)});
  const auto three = Score("l2cos", {1, 5, 2}, {Along(a, 3), KnownDelta{}, Along(b, 2)});
  EXPECT_EQ(three, (Vector{two[0], 0, two[1]}));
}

TEST(Scoring, L2IsTheSquaredNorm) {
  const Sketch x = Axis(0);
  EXPECT_EQ(Score("l2", {1, 9, -1}, {Along(x, 3), KnownDelta{}, Along(x, 0.5)}),
            (Vector{9, 0, 0.25}));
}

TEST(Scoring, AbsIsTheLargestSquareForEveryElement) {
  KnownDelta delta = {StatisticsKind::kExact, 1, 0.5, 6, nullptr};
  KnownDelta infinite = delta;
  infinite.max_abs = std::numeric_limits<double>::infinity();
  const auto scores = Score("abs", {1, 1, 1}, {delta, infinite, KnownDelta{}});
  EXPECT_EQ(scores[0], 1.5);
  EXPECT_TRUE(std::isfinite(scores[1]));
  EXPECT_GT(scores[1], 1e70);
  EXPECT_EQ(scores[2], 0);
}

TEST(Scoring, UniformDependsOnThePlaceAlone) {
  const Sketch x = Axis(0);
  const std::vector<KnownDelta> two = {Along(x, 1), Along(x, 2)};
  const auto scores = Score("uniform", {1, 1}, two, 3, "a");
  EXPECT_EQ(Score("uniform", {5, 0}, {KnownDelta{}, KnownDelta{}}, 3, "a"), scores);
  EXPECT_NE(scores[0], scores[1]);
  EXPECT_NE(Score("uniform", {1, 1}, two, 4, "a"), scores);
  EXPECT_NE(Score("uniform", {1, 1}, two, 3, "b"), scores);
}

TEST(Scoring, UniformFillsTheUnitInterval) {
  constexpr int kBlocks = 10'000;
  std::array<int, 10> tenths{};
  for (uint64_t block = 0; block < kBlocks; ++block) {
    const double score = Score("uniform", {1}, {KnownDelta{}}, block)[0];
    ASSERT_GE(score, 0);
    ASSERT_LT(score, 1);
    ++tenths[static_cast<size_t>(score * 10)];
  }
  for (const int count : tenths) EXPECT_NEAR(count, kBlocks / 10, 150);  // five deviations
}

TEST(Scoring, KnowsWhatNeedsStatistics) {
  for (const char* scoring : {"l2cos", "l2", "abs"})
    EXPECT_TRUE((*FindScoring(scoring))->needs_statistics) << scoring;
  EXPECT_FALSE((*FindScoring("uniform"))->needs_statistics);
  EXPECT_FALSE(FindScoring("").has_value());
  EXPECT_FALSE(FindScoring("L2").has_value());
}

}  // namespace
}  // namespace mergepipe
