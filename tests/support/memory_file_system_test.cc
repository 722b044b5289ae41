#include "support/memory_file_system.h"

#include <gtest/gtest.h>

#include <set>

namespace mergepipe {
namespace {

std::string Content(MemoryFileSystem& files, const std::string& path) {
  const auto text = ReadSmallFile(files, path, 1000);
  return text ? *text : "<" + text.error().ToString() + ">";
}

std::span<const std::byte> AsBytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(MemoryFileSystem, CrashDropsAllThatIsNotSynced) {
  MemoryFileSystem files;
  ASSERT_TRUE(WriteNewFile(files, "/named-and-synced", "a"));
  ASSERT_TRUE(files.Create("/named-only", 3));
  ASSERT_TRUE(files.CreateDirectory("/directory"));
  ASSERT_TRUE(WriteNewFile(files, "/directory/no-name", "c"));
  ASSERT_TRUE(files.SyncDirectory("/"));
  ASSERT_TRUE(WriteNewFile(files, "/late", "d"));
  EXPECT_EQ(Content(files, "/late"), "d");

  files.Crash();
  EXPECT_EQ(Content(files, "/named-and-synced"), "a");
  EXPECT_EQ(Content(files, "/named-only"), "");
  EXPECT_TRUE(files.Exists("/directory").value());
  EXPECT_TRUE(files.List("/directory")->empty());
  EXPECT_FALSE(files.Exists("/late").value());
}

TEST(MemoryFileSystem, CrashUndoesUnsyncedWritesRenamesAndRemovals) {
  MemoryFileSystem files;
  ASSERT_TRUE(WriteNewFile(files, "/a", "old"));
  ASSERT_TRUE(WriteNewFile(files, "/b", "b"));
  ASSERT_TRUE(files.SyncDirectory("/"));
  const auto file = files.OpenForWriting("/a").value();
  ASSERT_TRUE(file->WriteAt(0, AsBytes("new")));
  ASSERT_TRUE(files.Rename("/a", "/c", RenameMode::kMustNotExist));
  ASSERT_TRUE(files.Remove("/b"));
  EXPECT_EQ(Content(files, "/c"), "new");

  files.Crash();
  EXPECT_EQ(Content(files, "/a"), "old");
  EXPECT_EQ(Content(files, "/b"), "b");
  EXPECT_FALSE(files.Exists("/c").value());
}

TEST(MemoryFileSystem, SyncedStateOutlivesASecondCrash) {
  MemoryFileSystem files;
  ASSERT_TRUE(WriteNewFile(files, "/a", "a"));
  ASSERT_TRUE(files.SyncDirectory("/"));
  files.Crash();
  files.Crash(3);
  EXPECT_EQ(Content(files, "/a"), "a");
}

TEST(MemoryFileSystem, SeededCrashesShowEveryMixture) {
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 64; ++seed) {
    MemoryFileSystem files;
    ASSERT_TRUE(WriteNewFile(files, "/f", "old"));
    ASSERT_TRUE(files.CreateDirectory("/d"));
    ASSERT_TRUE(files.SyncDirectory("/"));
    ASSERT_TRUE(files.OpenForWriting("/f").value()->WriteAt(0, AsBytes("new")));
    ASSERT_TRUE(WriteNewFile(files, "/d/g", ""));
    files.Crash(seed);
    seen.insert(Content(files, "/f") + (files.Exists("/d/g").value() ? "+g" : ""));
  }
  EXPECT_EQ(seen, (std::set<std::string>{"old", "new", "old+g", "new+g"}));
}

TEST(MemoryFileSystem, OpenFilesAndLocksDieInACrash) {
  MemoryFileSystem files;
  ASSERT_TRUE(WriteNewFile(files, "/a", "a"));
  ASSERT_TRUE(files.SyncDirectory("/"));
  const auto reader = files.OpenForReading("/a").value();
  const auto writer = files.OpenForWriting("/a").value();
  auto lock = files.Lock("/lock").value();
  files.Crash();
  std::byte byte{};
  EXPECT_FALSE(reader->ReadAt(0, std::span(&byte, 1)));
  EXPECT_FALSE(writer->WriteAt(0, AsBytes("b")));
  EXPECT_FALSE(writer->Sync());
  const auto second = files.Lock("/lock");
  ASSERT_TRUE(second);
  lock.reset();  // a dead holder must not take the new one's lock away
  EXPECT_TRUE(files.Exists("/lock").value());
  EXPECT_FALSE(files.Lock("/lock"));
}

TEST(MemoryFileSystem, RefusesMoreThanItsCapacity) {
  MemoryFileSystem files(Bytes(10));
  const auto file = files.Create("/a", 6).value();
  EXPECT_EQ(files.FreeSpace("/").value(), 4u);
  const auto second = files.Create("/b", 5);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), ErrorKind::kNoSpace);
  EXPECT_FALSE(files.Exists("/b").value());
  EXPECT_TRUE(file->WriteAt(6, AsBytes("1234")));
  const auto over = file->WriteAt(10, AsBytes("5"));
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().kind(), ErrorKind::kNoSpace);
}

}  // namespace
}  // namespace mergepipe
