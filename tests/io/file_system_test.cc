// What every FileSystem promises, on the real one and on the memory one that other tests trust.
#include <gtest/gtest.h>

#include <optional>

#include "mergepipe/io/file.h"
#include "support/memory_file_system.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

enum class Kind { kPosix, kMemory };

class FileSystemContract : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (GetParam() == Kind::kPosix) {
      directory_.emplace();
      root_ = directory_->path();
    } else {
      root_ = "/root";
      ASSERT_TRUE(memory_.CreateDirectory(root_));
    }
  }
  FileSystem& files() { return GetParam() == Kind::kPosix ? PosixFileSystem() : memory_; }
  std::string At(const std::string& name) const { return JoinPath(root_, name); }
  void Make(const std::string& name, std::string_view text) {
    ASSERT_TRUE(WriteNewFile(files(), At(name), text));
  }
  void MakeDirectory(const std::string& name) { ASSERT_TRUE(files().CreateDirectories(At(name))); }
  std::string Content(const std::string& name) {
    const auto text = ReadSmallFile(files(), At(name), 1 << 20);
    return text ? *text : "<" + text.error().ToString() + ">";
  }
  // The names in a directory, with "/" after those of directories.
  std::string Names(const std::string& name = "") {
    std::string names;
    const auto entries = files().List(At(name)).value();
    for (const DirectoryEntry& entry : entries) {
      names +=
          (names.empty() ? "" : " ") + entry.name + (entry.kind == FileKind::kDirectory ? "/" : "");
    }
    return names;
  }
  template <typename T>
  static void ExpectError(const Result<T>& result, ErrorKind kind, const std::string& path) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().kind(), kind) << result.error().ToString();
    EXPECT_EQ(result.error().problems()[0].subject, path);
  }

  std::optional<TemporaryDirectory> directory_;
  MemoryFileSystem memory_;
  std::string root_;
};

INSTANTIATE_TEST_SUITE_P(All, FileSystemContract, testing::Values(Kind::kPosix, Kind::kMemory),
                         [](const auto& test) {
                           return test.param == Kind::kPosix ? "Posix" : "Memory";
                         });

TEST_P(FileSystemContract, ReadsWhatWasWritten) {
  Make("f", "hello");
  const auto file = files().OpenForReading(At("f")).value();
  EXPECT_EQ(file->size(), 5u);
  EXPECT_EQ(file->path(), At("f"));
  std::string text(3, '?');
  ASSERT_TRUE(file->ReadAt(1, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(text, "ell");
  EXPECT_TRUE(file->ReadAt(5, {}));
}

TEST_P(FileSystemContract, AShortFileIsBadInput) {
  Make("f", "hello");
  const auto file = files().OpenForReading(At("f")).value();
  std::string text(6, '?');
  const auto out = std::as_writable_bytes(std::span(text));
  ExpectError(file->ReadAt(0, out), ErrorKind::kBadInput, At("f"));
  ExpectError(file->ReadAt(5, out.first(1)), ErrorKind::kBadInput, At("f"));
  ExpectError(file->ReadAt(1000, out.first(1)), ErrorKind::kBadInput, At("f"));
}

TEST_P(FileSystemContract, OnlyFilesOpen) {
  MakeDirectory("d");
  ExpectError(files().OpenForReading(At("none")), ErrorKind::kBadInput, At("none"));
  ExpectError(files().OpenForReading(At("d")), ErrorKind::kBadInput, At("d"));
  ExpectError(files().OpenForWriting(At("none")), ErrorKind::kBadInput, At("none"));
  EXPECT_FALSE(files().OpenForWriting(At("d")));
  Make("f", "");
  ExpectError(files().OpenForReading(At("f/g")), ErrorKind::kBadInput, At("f/g"));
}

TEST_P(FileSystemContract, CreateIsExclusiveAndSized) {
  const auto file = files().Create(At("f"), 8);
  ASSERT_TRUE(file);
  EXPECT_EQ(files().Stat(At("f"))->size, 8u);
  ASSERT_TRUE((*file)->WriteAt(6, std::as_bytes(std::span("xyz", 3))));
  EXPECT_EQ(Content("f"), std::string(6, '\0') + "xyz");
  ExpectError(files().Create(At("f"), 1), ErrorKind::kIo, At("f"));
  EXPECT_EQ(files().Stat(At("f"))->size, 9u);
  ExpectError(files().Create(At("no/f"), 1), ErrorKind::kIo, At("no/f"));
}

TEST_P(FileSystemContract, OpenForWritingKeepsTheRest) {
  Make("f", "abcdef");
  const auto file = files().OpenForWriting(At("f")).value();
  ASSERT_TRUE(file->WriteAt(2, std::as_bytes(std::span("XY", 2))));
  EXPECT_TRUE(file->Sync());
  EXPECT_TRUE(file->Close());
  EXPECT_EQ(Content("f"), "abXYef");
}

TEST_P(FileSystemContract, AClosedFileIsClosed) {
  const auto file = files().Create(At("f"), 1).value();
  EXPECT_TRUE(file->Close());
  EXPECT_FALSE(file->WriteAt(0, std::as_bytes(std::span("x", 1))));
  EXPECT_FALSE(file->Sync());
}

TEST_P(FileSystemContract, StatTellsKindSizeAndIdentity) {
  Make("f", "abc");
  MakeDirectory("d");
  const FileInfo before = files().Stat(At("f")).value();
  EXPECT_EQ(before.kind, FileKind::kRegular);
  EXPECT_EQ(before.size, 3u);
  EXPECT_EQ(files().Stat(At("d"))->kind, FileKind::kDirectory);
  EXPECT_EQ(files().Stat(At("f")).value(), before);

  Make("g", "abc");
  EXPECT_NE(files().Stat(At("g"))->inode, before.inode);
  ASSERT_TRUE(files().Rename(At("f"), At("h"), RenameMode::kMustNotExist));
  EXPECT_EQ(files().Stat(At("h")).value(), before);
}

TEST_P(FileSystemContract, StatOfNothingIsBadInputAndExistsIsFalse) {
  Make("f", "");
  for (const char* name : {"none", "none/f", "f/g"}) {
    ExpectError(files().Stat(At(name)), ErrorKind::kBadInput, At(name));
    EXPECT_FALSE(files().Exists(At(name)).value()) << name;
  }
  EXPECT_TRUE(files().Exists(At("f")).value());
}

TEST_P(FileSystemContract, ListIsSorted) {
  for (const char* name : {"b", "a10", "B", "a", ".c"}) Make(name, "");
  MakeDirectory("d/e");
  EXPECT_EQ(Names(), ".c B a a10 b d/");
  EXPECT_EQ(Names("d"), "e/");
  EXPECT_EQ(Names("d/e"), "");
  ExpectError(files().List(At("none")), ErrorKind::kBadInput, At("none"));
  ExpectError(files().List(At("a")), ErrorKind::kBadInput, At("a"));
}

TEST_P(FileSystemContract, MakesDirectories) {
  EXPECT_TRUE(files().CreateDirectories(At("a/b/c")));
  EXPECT_TRUE(files().CreateDirectories(At("a/b/c")));
  EXPECT_EQ(Names("a/b"), "c/");
  EXPECT_EQ(files().CreateDirectory(At("a/d")), true);
  EXPECT_EQ(files().CreateDirectory(At("a/d")), false);
  ExpectError(files().CreateDirectory(At("x/y")), ErrorKind::kIo, At("x/y"));
  Make("f", "");
  EXPECT_EQ(files().CreateDirectory(At("f")), false);
  EXPECT_FALSE(files().CreateDirectories(At("f")));
  EXPECT_FALSE(files().CreateDirectories(At("f/g")));
}

TEST_P(FileSystemContract, SyncsDirectoriesOnly) {
  Make("f", "");
  EXPECT_TRUE(files().SyncDirectory(root_));
  EXPECT_FALSE(files().SyncDirectory(At("f")));
  ExpectError(files().SyncDirectory(At("none")), ErrorKind::kBadInput, At("none"));
}

TEST_P(FileSystemContract, RenameMustNotExist) {
  Make("a", "A");
  Make("b", "B");
  EXPECT_FALSE(files().Rename(At("a"), At("b"), RenameMode::kMustNotExist));
  EXPECT_EQ(Content("a") + Content("b"), "AB");
  MakeDirectory("d");
  MakeDirectory("empty");
  EXPECT_FALSE(files().Rename(At("d"), At("empty"), RenameMode::kMustNotExist));
  EXPECT_TRUE(files().Rename(At("a"), At("d/a"), RenameMode::kMustNotExist));
  EXPECT_EQ(Content("d/a"), "A");
  EXPECT_EQ(Names(), "b d/ empty/");
  EXPECT_FALSE(files().Rename(At("none"), At("new"), RenameMode::kMustNotExist));
  EXPECT_FALSE(files().Rename(At("b"), At("none/b"), RenameMode::kMustNotExist));
}

TEST_P(FileSystemContract, RenameExchangesBoth) {
  MakeDirectory("a");
  Make("a/new", "N");
  MakeDirectory("b");
  Make("b/old", "O");
  EXPECT_TRUE(files().Rename(At("a"), At("b"), RenameMode::kExchange));
  EXPECT_EQ(Names("a"), "old");
  EXPECT_EQ(Names("b"), "new");
  EXPECT_FALSE(files().Rename(At("a"), At("none"), RenameMode::kExchange));
  EXPECT_FALSE(files().Rename(At("none"), At("a"), RenameMode::kExchange));
  EXPECT_EQ(Names(), "a/ b/");
}

TEST_P(FileSystemContract, RenameReplaces) {
  Make("a", "A");
  Make("b", "B");
  EXPECT_TRUE(files().Rename(At("a"), At("b"), RenameMode::kReplace));
  EXPECT_EQ(Content("b"), "A");
  EXPECT_EQ(Names(), "b");
  MakeDirectory("full/x");
  MakeDirectory("d");
  EXPECT_FALSE(files().Rename(At("d"), At("full"), RenameMode::kReplace));
  EXPECT_FALSE(files().Rename(At("d"), At("b"), RenameMode::kReplace));
  EXPECT_FALSE(files().Rename(At("b"), At("d"), RenameMode::kReplace));
  EXPECT_FALSE(files().Rename(At("full"), At("full/x/y"), RenameMode::kReplace));
  EXPECT_EQ(Names(), "b d/ full/");
}

TEST_P(FileSystemContract, RemovesFilesAndTrees) {
  MakeDirectory("d/e");
  Make("d/e/f", "");
  Make("g", "");
  EXPECT_TRUE(files().Remove(At("d")));
  EXPECT_TRUE(files().Remove(At("none")));
  EXPECT_TRUE(files().Remove(At("none/none")));
  EXPECT_EQ(Names(), "g");
  EXPECT_TRUE(files().Remove(At("g")));
  EXPECT_EQ(Names(), "");
}

TEST_P(FileSystemContract, KnowsTheFreeSpace) {
  EXPECT_GT(files().FreeSpace(root_).value(), 0u);
  EXPECT_FALSE(files().FreeSpace(At("none")));
}

TEST_P(FileSystemContract, LocksExcludeAndVanish) {
  auto lock = files().Lock(At("lock"));
  ASSERT_TRUE(lock);
  EXPECT_EQ(Names(), "lock");
  ExpectError(files().Lock(At("lock")), ErrorKind::kUsage, At("lock"));
  EXPECT_TRUE(files().Lock(At("other")));
  lock->reset();
  EXPECT_EQ(Names(), "");
  EXPECT_TRUE(files().Lock(At("lock")));
  EXPECT_FALSE(files().Lock(At("none/lock")));
}

TEST_P(FileSystemContract, AStaleLockFileDoesNotLock) {
  Make("lock", "");
  EXPECT_TRUE(files().Lock(At("lock")));
  EXPECT_EQ(Names(), "");
}

TEST_P(FileSystemContract, ReadSmallFileHasALimit) {
  Make("f", "hello");
  EXPECT_EQ(ReadSmallFile(files(), At("f"), 5).value(), "hello");
  ExpectError(ReadSmallFile(files(), At("f"), 4), ErrorKind::kBadInput, At("f"));
  ExpectError(ReadSmallFile(files(), At("none"), 4), ErrorKind::kBadInput, At("none"));
}

TEST_P(FileSystemContract, WriteNewFileDoesNotOverwrite) {
  Make("f", "old");
  EXPECT_FALSE(WriteNewFile(files(), At("f"), "new"));
  EXPECT_EQ(Content("f"), "old");
  Make("empty", "");
  EXPECT_EQ(Content("empty"), "");
}

TEST_P(FileSystemContract, DurableDirectoriesAreMadeWithTheirParents) {
  for (const char* name : {"a/b/c", "a/b/c", "a/d"}) {
    EXPECT_TRUE(CreateDurableDirectories(files(), At(name))) << name;
    EXPECT_EQ(files().Stat(At(name))->kind, FileKind::kDirectory);
  }
  Make("file", "text");
  EXPECT_FALSE(CreateDurableDirectories(files(), At("file")));
  EXPECT_FALSE(CreateDurableDirectories(files(), At("file/a")));
}

TEST(DurableDirectories, SurviveACrash) {
  MemoryFileSystem files;
  ASSERT_TRUE(CreateDurableDirectories(files, "/a/b/c"));
  ASSERT_TRUE(files.CreateDirectories("/a/b/d"));
  files.Crash();
  EXPECT_TRUE(files.Exists("/a/b/c").value());
  EXPECT_FALSE(files.Exists("/a/b/d").value());
}

}  // namespace
}  // namespace mergepipe
