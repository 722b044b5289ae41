#include "mergepipe/plan/block_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace mergepipe {
namespace {

BlockSet SetOf(uint64_t size, const std::set<uint64_t>& blocks) {
  BlockSet set(size);
  for (const uint64_t block : blocks) set.Add(BlockIndex(block));
  return set;
}

std::set<uint64_t> Members(const BlockSet& set) {
  std::set<uint64_t> members;
  for (uint64_t b = 0; b < set.size(); ++b) {
    if (set.Contains(BlockIndex(b))) members.insert(b);
  }
  return members;
}

using Runs = std::vector<std::pair<uint64_t, uint64_t>>;

Runs RunsOf(const BlockSet& set) {
  Runs runs;
  set.ForEachRun(
      [&](BlockIndex begin, BlockIndex end) { runs.emplace_back(begin.value, end.value); });
  return runs;
}

// The runs of a plain set.
Runs RunsOf(const std::set<uint64_t>& blocks) {
  Runs runs;
  for (const uint64_t block : blocks) {
    if (!runs.empty() && runs.back().second == block) {
      ++runs.back().second;
    } else {
      runs.emplace_back(block, block + 1);
    }
  }
  return runs;
}

std::string RangesText(const std::set<uint64_t>& blocks) {
  std::string text;
  for (const auto& [begin, end] : RunsOf(blocks)) {
    if (!text.empty()) text += ',';
    text += std::to_string(begin);
    if (end - begin > 1) text += "-" + std::to_string(end - 1);
  }
  return text;
}

TEST(BlockSet, RunsCrossWordsAndReachTheEnd) {
  EXPECT_EQ(RunsOf(BlockSet(0)), Runs());
  EXPECT_EQ(RunsOf(BlockSet(200)), Runs());
  EXPECT_EQ(RunsOf(SetOf(200, {0, 1, 62, 63, 64, 65, 128, 199})),
            (Runs{{0, 2}, {62, 66}, {128, 129}, {199, 200}}));
}

TEST(BlockSet, HasTheShorterTextForm) {
  EXPECT_EQ(BlockSet(0).ToText(), "");
  EXPECT_EQ(BlockSet(9).ToText(), "");
  EXPECT_EQ(SetOf(9, {0, 1, 2, 3, 5}).ToText(), "0-3,5");
  EXPECT_EQ(SetOf(9, {8}).ToText(), "8");
  // Block b is bit b % 8 of byte b / 8.
  EXPECT_EQ(SetOf(9, {0, 2, 4, 8}).ToText(), "x:1501");
  // Ranges when equal: 0,2 and x:05 differ; 0,2,4 has 5 characters, x:15 has 4; 1-3 4-character
  // texts are ranges.
  EXPECT_EQ(SetOf(8, {0, 2}).ToText(), "0,2");
  EXPECT_EQ(SetOf(8, {0, 2, 4}).ToText(), "x:15");
  EXPECT_EQ(SetOf(16, {10, 11, 12}).ToText(), "10-12");
  EXPECT_EQ(SetOf(16, {0, 2, 12}).ToText(), "0,2,12");  // 6 characters either way
  EXPECT_EQ(SetOf(16, {0, 2, 4, 12}).ToText(), "x:1510");
}

TEST(BlockSet, ReadsBothTextForms) {
  EXPECT_EQ(BlockSet::FromText("", 5), BlockSet(5));
  EXPECT_EQ(BlockSet::FromText("0-3,5", 9), SetOf(9, {0, 1, 2, 3, 5}));
  EXPECT_EQ(BlockSet::FromText("x:1501", 9), SetOf(9, {0, 2, 4, 8}));
  EXPECT_EQ(BlockSet::FromText("x:", 0), BlockSet(0));
  EXPECT_EQ(BlockSet::FromText("x:0000", 9), BlockSet(9));
}

TEST(BlockSet, RefusesMalformedTexts) {
  for (const char* text : {",",
                           "1,",
                           ",1",
                           "1,,2",
                           "-",
                           "1-",
                           "-1",
                           "3-2",
                           "2,1",
                           "1,1",
                           "0-3,3",
                           "0-3,2-5",
                           "9",
                           "0-9",
                           "a",
                           " 1",
                           "1 ",
                           "1, 2",
                           "+1",
                           "0x1",
                           "1-2-3",
                           "1.5",
                           "18446744073709551615",
                           "18446744073709551616",
                           "0-18446744073709551615",
                           "99999999999999999999999",
                           "x",
                           "x:",
                           "x:0",
                           "x:00",
                           "x:000",
                           "x:00000",
                           "x:000000",
                           "x:0g00",
                           "x:0A00",
                           "x:0002",
                           "x:0080",
                           "X:0000",
                           "x:-100",
                           "x:1501,",
                           "0,x:1501"}) {
    EXPECT_FALSE(BlockSet::FromText(text, 9).has_value()) << text;
  }
  EXPECT_FALSE(BlockSet::FromText("0", 0).has_value());
  EXPECT_FALSE(BlockSet::FromText("x:00", 0).has_value());
  EXPECT_FALSE(BlockSet::FromText(std::string_view("1\0", 2), 9).has_value());
}

TEST(BlockSet, AgreesWithAPlainSet) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    const uint64_t size = random() % 300;
    const uint64_t density = 1 + random() % 10;
    BlockSet set(size);
    BlockSet other(size);
    std::set<uint64_t> plain;
    std::set<uint64_t> plain_other;
    bool on = false;  // long runs as well as single blocks
    for (uint64_t b = 0; b < size; ++b) {
      if (random() % density == 0) on = !on;
      if (on) set.Add(BlockIndex(b)), plain.insert(b);
      if (random() % density == 0) other.Add(BlockIndex(b)), plain_other.insert(b);
    }
    for (uint64_t i = 0; size > 0 && i < random() % 5; ++i) {
      const uint64_t b = random() % size;
      set.Remove(BlockIndex(b));
      plain.erase(b);
    }
    ASSERT_EQ(Members(set), plain);
    ASSERT_EQ(set.Count(), plain.size());
    ASSERT_EQ(set.Empty(), plain.empty());
    ASSERT_EQ(RunsOf(set), RunsOf(plain));

    const std::string text = set.ToText();
    const std::string ranges = RangesText(plain);
    const size_t bitmap = 2 + (size + 7) / 8 * 2;
    if (ranges.size() <= bitmap) {
      ASSERT_EQ(text, ranges);
    } else {
      ASSERT_EQ(text.substr(0, 2), "x:");
      ASSERT_EQ(text.size(), bitmap);
    }
    ASSERT_EQ(BlockSet::FromText(text, size), set) << text;
    ASSERT_EQ(BlockSet::FromText(ranges, size), set) << ranges;

    const uint64_t begin = random() % (size + 1);
    const uint64_t end = begin + random() % (size - begin + 1);
    const std::set<uint64_t> within(plain.lower_bound(begin), plain.lower_bound(end));
    const BlockSet part = set.Within(BlockIndex(begin), BlockIndex(end));
    ASSERT_EQ(Members(part), within);
    ASSERT_EQ(part.size(), size);

    set.Unite(other);
    plain.insert(plain_other.begin(), plain_other.end());
    ASSERT_EQ(Members(set), plain);
  }
}

}  // namespace
}  // namespace mergepipe
