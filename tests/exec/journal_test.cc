#include "mergepipe/exec/journal.h"

#include <gtest/gtest.h>

#include <fstream>

#include "exec/draw.h"
#include "exec/exec_fixture.h"

namespace mergepipe {
namespace {

using namespace test;

constexpr Hash128 kIdentity{7, 9};

std::string InDirectory(const TempDirectory& directory, const std::string& name) {
  return JoinPath(directory.path(), name);
}

FinishedUnit RandomUnit(Draw& draw) {
  FinishedUnit unit;
  unit.reports = draw.Some([&] { return draw.Report(); });
  unit.moved = {draw.Number(), draw.Number(), draw.Number(), draw.Number(), draw.Number()};
  return unit;
}

// A journal file of some records, and what it should say.
struct Written {
  std::string bytes;
  JournalContents contents;
  std::vector<size_t> ends;  // of the head, and of each record
};

Written Write(const std::string& path, uint64_t seed) {
  Draw draw(seed);
  Written written;
  std::filesystem::remove(path);
  auto writer = JournalWriter::Create(PosixFileSystem(), path, kIdentity);
  EXPECT_TRUE(writer.has_value());
  const auto end = [&] { written.ends.push_back(std::filesystem::file_size(path)); };
  end();
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE((*writer)->Append(BegunRecord(1000 + static_cast<uint64_t>(i))).has_value());
    written.contents.begun_bytes += 1000 + static_cast<uint64_t>(i);
    end();
    written.contents.rounds.push_back({draw.Small(), draw.Text(), draw.Number()});
    EXPECT_TRUE((*writer)->Append(JournalRecord(written.contents.rounds.back())).has_value());
    end();
    written.contents.units.push_back(RandomUnit(draw));
    EXPECT_TRUE((*writer)->Append(JournalRecord(written.contents.units.back())).has_value());
    end();
  }
  EXPECT_TRUE((*writer)->Sync().has_value());
  written.bytes = ReadBytes(path);
  return written;
}

JournalContents Parsed(std::string_view bytes, Hash128 identity = kIdentity) {
  JournalContents contents;
  ParseJournal(bytes, identity, contents);
  return contents;
}

void ExpectPrefix(const JournalContents& part, const JournalContents& whole) {
  ASSERT_LE(part.units.size(), whole.units.size());
  ASSERT_LE(part.rounds.size(), whole.rounds.size());
  for (size_t i = 0; i < part.units.size(); ++i) ASSERT_EQ(part.units[i], whole.units[i]);
  for (size_t i = 0; i < part.rounds.size(); ++i) ASSERT_EQ(part.rounds[i], whole.rounds[i]);
  ASSERT_LE(part.begun_bytes, whole.begun_bytes);
}

size_t Records(const JournalContents& contents) {
  return contents.units.size() + contents.rounds.size();
}

TEST(Journal, SaysWhatWasWritten) {
  const TempDirectory directory;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::string path = InDirectory(directory, "journal");
    const Written written = Write(path, seed);
    JournalContents read;
    ASSERT_TRUE(ReadJournal(PosixFileSystem(), path, kIdentity, read).has_value());
    EXPECT_EQ(read.units, written.contents.units);
    EXPECT_EQ(read.rounds, written.contents.rounds);
    EXPECT_EQ(read.begun_bytes, written.contents.begun_bytes);
  }
}

TEST(Journal, SeveralAddUp) {
  const TempDirectory directory;
  const Written first = Write(InDirectory(directory, "1"), 1);
  const Written second = Write(InDirectory(directory, "2"), 2);
  JournalContents both;
  ASSERT_TRUE(
      ReadJournal(PosixFileSystem(), InDirectory(directory, "1"), kIdentity, both).has_value());
  ASSERT_TRUE(
      ReadJournal(PosixFileSystem(), InDirectory(directory, "2"), kIdentity, both).has_value());
  EXPECT_EQ(both.units.size(), first.contents.units.size() + second.contents.units.size());
  EXPECT_EQ(both.begun_bytes, first.contents.begun_bytes + second.contents.begun_bytes);
}

// Cut anywhere, it says what its whole records say, and no more.
TEST(Journal, ATornTailCountsForNothing) {
  const TempDirectory directory;
  const Written written = Write(InDirectory(directory, "journal"), 3);
  size_t whole = 0;
  for (size_t length = 0; length <= written.bytes.size(); ++length) {
    const JournalContents parsed = Parsed(std::string_view(written.bytes).substr(0, length));
    ASSERT_NO_FATAL_FAILURE(ExpectPrefix(parsed, written.contents)) << length;
    while (whole < written.ends.size() && written.ends[whole] <= length) ++whole;
    // Of three records one says only how much was begun.
    const size_t records = whole == 0 ? 0 : (whole - 1) / 3 * 2 + ((whole - 1) % 3 == 2 ? 1 : 0);
    ASSERT_EQ(Records(parsed), records) << length;
  }
}

TEST(Journal, AFlippedBitEndsIt) {
  const TempDirectory directory;
  const Written written = Write(InDirectory(directory, "journal"), 4);
  std::string bytes = written.bytes;
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const auto flip = [&] {
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    };
    flip();
    const JournalContents parsed = Parsed(bytes);
    ASSERT_NO_FATAL_FAILURE(ExpectPrefix(parsed, written.contents)) << bit;
    ASSERT_LT(Records(parsed) + (parsed.begun_bytes < written.contents.begun_bytes ? 0u : 1u),
              Records(written.contents) + 1)
        << bit;
    flip();
  }
}

TEST(Journal, OfAnotherOutputSaysNothing) {
  const TempDirectory directory;
  const Written written = Write(InDirectory(directory, "journal"), 5);
  EXPECT_EQ(Records(Parsed(written.bytes, {7, 8})), 0u);
  EXPECT_EQ(Records(Parsed("")), 0u);
  EXPECT_EQ(Records(Parsed(std::string(100, '\0'))), 0u);
  EXPECT_EQ(Records(Parsed(std::string(100, '\xff'))), 0u);
}

TEST(Journal, IsNewOrRefused) {
  const TempDirectory directory;
  Write(InDirectory(directory, "journal"), 6);
  const auto again =
      JournalWriter::Create(PosixFileSystem(), InDirectory(directory, "journal"), kIdentity);
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().kind(), ErrorKind::kIo);
  JournalContents contents;
  EXPECT_FALSE(ReadJournal(PosixFileSystem(), InDirectory(directory, "none"), kIdentity, contents)
                   .has_value());
}

}  // namespace
}  // namespace mergepipe
