#include <gtest/gtest.h>

#include <limits>

#include "strategy/tensor_fixture.h"

namespace mergepipe {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// The subjects of the problems that the strategy's check finds, joined.
std::string Problems(const StrategyOptions& options) {
  const Status checked = test::Row(options).check(options);
  if (checked.has_value()) return {};
  EXPECT_EQ(checked.error().kind(), ErrorKind::kUsage);
  std::string subjects;
  for (const Problem& problem : checked.error().problems()) {
    EXPECT_FALSE(problem.what.empty());
    EXPECT_FALSE(problem.remedy.empty());
    subjects += problem.subject;
  }
  return subjects;
}

std::string Problems(std::string name, double density, std::vector<double> weights,
                     bool normalize = true, double lambda = 1.0) {
  return Problems({.name = std::move(name),
                   .density = density,
                   .weights = std::move(weights),
                   .lambda = lambda,
                   .normalize = normalize});
}

TEST(StrategyTable, NamesDefaults) {
  std::vector<std::string> names;
  for (const StrategyRow& row : StrategyTable()) names.emplace_back(row.name);
  EXPECT_EQ(names, (std::vector<std::string>{"ties", "avg", "dare"}));
  EXPECT_EQ((*FindStrategy("ties"))->default_density, 0.6);
  EXPECT_EQ((*FindStrategy("dare"))->default_density, 0.5);
  EXPECT_EQ((*FindStrategy("avg"))->default_density, 1.0);
}

TEST(StrategyTable, RowsAgreeWithWhatTheyMake) {
  for (const StrategyRow& row : StrategyTable()) {
    for (const bool by_block : {false, true}) {
      const StrategyOptions options{
          .name = std::string(row.name), .weights = {1.0}, .trim_by_block = by_block};
      EXPECT_EQ(row.make(options)->ObservationRounds(), row.rounds(options));
    }
  }
}

TEST(StrategyTable, SuggestsTheNearestName) {
  const auto found = FindStrategy("tyes");
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().kind(), ErrorKind::kUsage);
  EXPECT_EQ(
      found.error().ToString(),
      "--strategy: there is no strategy 'tyes'; did you mean 'ties'? known are ties, avg, dare");
  EXPECT_EQ(FindStrategy("slerp\n").error().ToString(),
            "--strategy: there is no strategy 'slerp\\n'; known are ties, avg, dare");
}

TEST(StrategyCheck, AcceptsUsualOptions) {
  for (const char* name : {"ties", "avg", "dare"}) {
    EXPECT_EQ(Problems(name, 1.0, {1.0, 1.0}), "");
    EXPECT_EQ(Problems(name, 0.01, {0.0, 1e-3}), "");
    EXPECT_EQ(Problems(name, 0.5, {-1.0, 1.0}, false), "");
    EXPECT_EQ(Problems(name, 0.5, {0.0}, false, -2.0), "");
  }
}

TEST(StrategyCheck, NamesBadDensities) {
  for (const double density : {0.0, -0.5, 1.0000001, kNan, kInfinity}) {
    EXPECT_EQ(Problems("ties", density, {1.0}), "--density");
    EXPECT_EQ(Problems("dare", density, {1.0}), "--density");
    EXPECT_EQ(Problems("avg", density, {1.0}), "");
  }
  EXPECT_EQ(Problems("ties", 1e-12, {1.0}), "");
  EXPECT_EQ(Problems("dare", 1e-12, {1.0}), "--density");
}

TEST(StrategyCheck, NamesBadWeightsAndLambdas) {
  for (const char* name : {"ties", "avg", "dare"}) {
    EXPECT_EQ(Problems(name, 0.5, {}), "--weights");
    EXPECT_EQ(Problems(name, 0.5, {0.0, 0.0}), "--weights");
    for (const double bad : {kNan, kInfinity, -kInfinity, 1e300}) {
      EXPECT_EQ(Problems(name, 0.5, {1.0, bad}, false), "--weights") << name << bad;
      EXPECT_EQ(Problems(name, 0.5, {1.0}, true, bad), "--lambda");
    }
  }
  EXPECT_EQ(Problems("avg", 0.5, {1.0, -1.0}), "--weights");
  EXPECT_EQ(Problems("avg", 0.5, {2.0, -1.0}), "");
  EXPECT_EQ(Problems("avg", 0.5, {1e30, 1e-10 - 1e30, 1e-300}), "--weights");
  EXPECT_EQ(Problems("ties", 0.5, {2.0, -1.0}), "--weights");
  EXPECT_EQ(Problems("ties", 0.0, {2.0, -1.0}, true, kNan), "--density--weights--lambda");
}

}  // namespace
}  // namespace mergepipe
