#include <gtest/gtest.h>
#include <sys/vfs.h>

#include "mergepipe/io/file.h"
#include "support/memory_file_system.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

DiskTraits TraitsOf(const std::string& path) {
  const auto traits = PosixFileSystem().TraitsOf(path);
  if (!traits) ADD_FAILURE() << traits.error().ToString();
  return traits.value_or(DiskTraits());
}

TEST(DiskTraits, ProcIsNoDisk) {
  const DiskTraits traits = TraitsOf("/proc");
  EXPECT_EQ(traits.filesystem, "proc");
  EXPECT_FALSE(traits.network);
  EXPECT_FALSE(traits.direct);
}

TEST(DiskTraits, TmpfsIsAllCache) {
  struct statfs disk {};
  if (::statfs("/dev/shm", &disk) != 0 || disk.f_type != 0x01021994) {
    GTEST_SKIP() << "no tmpfs at /dev/shm";
  }
  const DiskTraits traits = TraitsOf("/dev/shm");
  EXPECT_EQ(traits.filesystem, "tmpfs");
  EXPECT_FALSE(traits.network);
  EXPECT_FALSE(traits.direct);
}

TEST(DiskTraits, AnUnknownOneIsItsNumber) {
  struct statfs disk {};
  if (::statfs("/dev/pts", &disk) != 0 || disk.f_type != 0x1CD1) GTEST_SKIP() << "no devpts";
  EXPECT_EQ(TraitsOf("/dev/pts").filesystem, "0x1cd1");
}

TEST(DiskTraits, DirectoriesAndFilesOfADiskAgree) {
  const TemporaryDirectory directory;
  ASSERT_TRUE(WriteNewFile(PosixFileSystem(), directory / "f", "text"));
  const DiskTraits of_directory = TraitsOf(directory.path());
  const DiskTraits of_file = TraitsOf(directory / "f");
  EXPECT_EQ(of_file.filesystem, of_directory.filesystem);
  EXPECT_EQ(of_file.network, of_directory.network);
  EXPECT_EQ(of_file.direct, of_directory.direct);
  if (of_file.filesystem != "ext4" && of_file.filesystem != "xfs") {
    GTEST_SKIP() << "the directory for temporary files is on " << of_file.filesystem;
  }
  EXPECT_TRUE(of_file.direct);
  EXPECT_FALSE(of_file.network);
  EXPECT_EQ(PosixFileSystem().List(directory.path())->size(), 1u) << "asking left a file behind";
}

TEST(DiskTraits, NothingThereIsBadInput) {
  const TemporaryDirectory directory;
  const auto traits = PosixFileSystem().TraitsOf(directory / "none");
  ASSERT_FALSE(traits);
  EXPECT_EQ(traits.error().kind(), ErrorKind::kBadInput);
  EXPECT_EQ(traits.error().problems()[0].subject, directory / "none");
}

TEST(DiskTraits, OtherFileSystemsKnowNothing) {
  MemoryFileSystem memory;
  ASSERT_TRUE(memory.CreateDirectory("/d"));
  EXPECT_FALSE(memory.TraitsOf("/d")->direct);
  EXPECT_FALSE(memory.TraitsOf("/none"));
}

}  // namespace
}  // namespace mergepipe
