#include "support/fault_file_system.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "support/error_of.h"
#include "support/memory_file_system.h"

namespace mergepipe {
namespace {

const Error kDiskFull = SystemError(28, "/disk", "write");

TEST(FaultFileSystem, CountsAndLogsEveryCall) {
  MemoryFileSystem memory;
  FaultFileSystem files(memory);
  ASSERT_TRUE(WriteNewFile(files, "/a", "text"));
  ASSERT_TRUE(ReadSmallFile(files, "/a", 100));
  ASSERT_TRUE(files.Rename("/a", "/b", RenameMode::kReplace));
  EXPECT_EQ(files.log(),
            (std::vector<std::string>{"Create /a", "WriteAt /a", "Sync /a", "Close /a",
                                      "OpenForReading /a", "ReadAt /a", "Replace /a /b"}));
  EXPECT_EQ(files.operations(), 7u);
}

TEST(FaultFileSystem, FailsOneCallOnceAndWithoutEffect) {
  for (uint64_t operation = 0; operation < 4; ++operation) {
    MemoryFileSystem memory;
    FaultFileSystem files(memory);
    files.FailAt(operation, kDiskFull, FaultFileSystem::Repeat::kOnce);
    const Status status = WriteNewFile(files, "/a", "text");
    ASSERT_FALSE(status) << operation;
    EXPECT_EQ(status.error(), kDiskFull);
    EXPECT_EQ(files.operations(), operation + 1);
    EXPECT_EQ(memory.Exists("/a").value(), operation > 0);
    EXPECT_TRUE(WriteNewFile(files, "/b", "text")) << operation;
  }
}

TEST(FaultFileSystem, FailsForeverUntilHealed) {
  MemoryFileSystem memory;
  FaultFileSystem files(memory);
  const auto file = files.Create("/a", 0).value();
  files.FailAt(1, kDiskFull, FaultFileSystem::Repeat::kForever);
  EXPECT_EQ(ErrorOf(file->Sync()), kDiskFull);
  EXPECT_EQ(ErrorOf(files.CreateDirectories("/d")), kDiskFull);
  EXPECT_FALSE(memory.Exists("/d").value());
  files.Heal();
  EXPECT_TRUE(files.CreateDirectories("/d"));
}

TEST(FaultFileSystem, FailsAsTheSystemDoes) {
  MemoryFileSystem memory;
  FaultFileSystem files(memory);
  files.FailAt(0, ENOSPC, FaultFileSystem::Repeat::kOnce);
  EXPECT_EQ(ErrorOf(files.CreateDirectories("/d")), SystemError(ENOSPC, "/d", "CreateDirectories"));
  EXPECT_TRUE(files.hit());
}

TEST(FaultFileSystem, TearsTheWriteAtWhichItFails) {
  MemoryFileSystem memory;
  FaultFileSystem files(memory);
  files.FailAt(1, EIO, FaultFileSystem::Repeat::kForever);
  const auto file = files.Create("/a", 0).value();
  const std::string text = "0123456789";
  EXPECT_EQ(ErrorOf(file->WriteAt(0, std::as_bytes(std::span(text)))),
            SystemError(EIO, "/a", "WriteAt"));
  EXPECT_FALSE(file->WriteAt(5, std::as_bytes(std::span(text))));
  EXPECT_EQ(ReadSmallFile(memory, "/a", 100).value(), "01234");
}

TEST(FaultFileSystem, NothingReachesTheDiskOnceItIsStopped) {
  MemoryFileSystem memory;
  FaultFileSystem files(memory);
  ASSERT_TRUE(files.CreateDirectories("/a"));
  EXPECT_FALSE(files.hit());
  files.Stop(kDiskFull);
  EXPECT_EQ(ErrorOf(files.Remove("/a")), kDiskFull);
  EXPECT_EQ(ErrorOf(files.CreateDirectories("/b")), kDiskFull);
  EXPECT_TRUE(memory.Exists("/a").value());
  EXPECT_FALSE(memory.Exists("/b").value());
}

}  // namespace
}  // namespace mergepipe
