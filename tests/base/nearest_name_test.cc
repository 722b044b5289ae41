#include "mergepipe/base/nearest_name.h"

#include <gtest/gtest.h>

#include <vector>

namespace mergepipe {
namespace {

std::optional<std::string> Nearest(std::string_view name, std::vector<std::string> known) {
  return NearestName(name, known);
}

TEST(NearestName, FindsTheLikelyTypo) {
  EXPECT_EQ(Nearest("tise", {"avg", "dare", "ties"}), "ties");
  EXPECT_EQ(Nearest("--experts", {"--export", "--expert"}), "--expert");
  EXPECT_EQ(Nearest("ties", {"tie", "ties"}), "ties");
}

TEST(NearestName, FarNamesAreNoGuess) {
  EXPECT_EQ(Nearest("avg", {}), std::nullopt);
  EXPECT_EQ(Nearest("", {"avg"}), std::nullopt);
  EXPECT_EQ(Nearest("linear", {"ties", "dare"}), std::nullopt);
}

TEST(NearestName, AThirdOfTheLongerLengthIsTheLimit) {
  EXPECT_EQ(Nearest("abcdef", {"abcdxy"}), "abcdxy");      // 2 of 6
  EXPECT_EQ(Nearest("abcdef", {"abcxyz"}), std::nullopt);  // 3 of 6
  EXPECT_EQ(Nearest("abcdef", {"abcdxyz"}), "abcdxyz");    // 3 of 7: rounded up
  EXPECT_EQ(Nearest("abc", {"abcde"}), "abcde");           // 2 of 5
}

TEST(NearestName, TheFirstOfEqualsWins) {
  EXPECT_EQ(Nearest("cat", {"bat", "rat"}), "bat");
  EXPECT_EQ(Nearest("cat", {"rat", "bat"}), "rat");
}

}  // namespace
}  // namespace mergepipe
