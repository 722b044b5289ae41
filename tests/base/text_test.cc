#include "mergepipe/base/text.h"

#include <gtest/gtest.h>

namespace mergepipe {
namespace {

using std::string_literals::operator""s;

TEST(EscapeControl, WritesControlCharactersOut) {
  EXPECT_EQ(EscapeControl("a\nb\tc\rd\x1b[31m\x7f"), "a\\nb\\tc\\x0dd\\x1b[31m\\x7f");
  EXPECT_EQ(EscapeControl("\0\x1f"s), "\\x00\\x1f");
  EXPECT_EQ(EscapeControl("plain 'text' \xc3\xa9 ~"), "plain 'text' \xc3\xa9 ~");
}

TEST(Quote, QuotesAndEscapes) {
  EXPECT_EQ(Quote("a\nb"), "'a\\nb'");
  EXPECT_EQ(Quote(""), "''");
}

TEST(JoinNames, ShowsAtMostTheLimit) {
  const std::vector<std::string> names = {"a", "b", "c"};
  EXPECT_EQ(JoinNames({}), "");
  EXPECT_EQ(JoinNames(names), "a, b, c");
  EXPECT_EQ(JoinNames(names, 3), "a, b, c");
  EXPECT_EQ(JoinNames(names, 2), "a, b and 1 more");
  EXPECT_EQ(JoinNames(std::vector<std::string>(10, "x")), "x, x, x, x, x, x, x, x and 2 more");
}

TEST(FormatShape, ListsTheDimensions) {
  EXPECT_EQ(FormatShape({}), "[]");
  EXPECT_EQ(FormatShape(std::vector<uint64_t>{2, 3}), "[2, 3]");
}

TEST(IsUtf8, AcceptsTheEdgesOfEachLength) {
  for (const std::string& text :
       {""s, "\0"s, "\x7f"s, "\xc2\x80"s, "\xdf\xbf"s, "\xe0\xa0\x80"s, "\xed\x9f\xbf"s,
        "\xee\x80\x80"s, "\xef\xbf\xbf"s, "\xf0\x90\x80\x80"s, "\xf4\x8f\xbf\xbf"s}) {
    EXPECT_TRUE(IsUtf8(text)) << testing::PrintToString(text);
    EXPECT_TRUE(IsUtf8("a" + text + "z")) << testing::PrintToString(text);
  }
}

TEST(IsUtf8, RefusesIllFormedBytes) {
  for (const std::string& text : {
           "\xc0\x80"s, "\xc1\xbf"s, "\xe0\x9f\xbf"s, "\xf0\x8f\xbf\xbf"s,  // overlong
           "\xed\xa0\x80"s, "\xed\xbf\xbf"s,                                // surrogates
           "\xf4\x90\x80\x80"s, "\xf5\x80\x80\x80"s, "\xff"s, "\xfe"s,      // over U+10FFFF
           "\xc2"s, "\xe2\x82"s, "\xf0\x9f\x98"s,                           // cut at the end
           "\x80"s, "\xbf"s,                                                // no lead
           "\xc2\x20"s, "\xe2\x82\xc0"s, "\xe2\x28\xa1"s,                   // no continuation
       }) {
    EXPECT_FALSE(IsUtf8(text)) << testing::PrintToString(text);
    EXPECT_FALSE(IsUtf8("a" + text)) << testing::PrintToString(text);
    EXPECT_FALSE(IsUtf8(text + "z")) << testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace mergepipe
