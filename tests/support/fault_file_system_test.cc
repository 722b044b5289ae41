#include "support/fault_file_system.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace mergepipe
