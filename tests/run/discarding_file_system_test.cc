#include "run/discarding_file_system.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>

#include "support/error_of.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

TEST(DiscardingFileSystem, ReadsAndDropsWhatIsWritten) {
  const TemporaryDirectory directory;
  ASSERT_TRUE(WriteNewFile(PosixFileSystem(), directory / "input", "bytes").has_value());
  const auto files = DiscardWrites(PosixFileSystem(), directory / "dropped");
  EXPECT_EQ(ReadSmallFile(*files, directory / "input", 100).value(), "bytes");
  EXPECT_EQ(files->Stat(directory / "input")->size, 5u);
  EXPECT_TRUE(files->Exists(directory / "dropped/any").value());
  EXPECT_FALSE(files->Exists(directory / "other").value());

  const auto out = files->OpenForWriting(directory / "dropped/any", TransferMode::kAuto);
  ASSERT_TRUE(out.has_value()) << ErrorOf(out).ToString();
  const std::array<std::byte, 3> bytes{};
  EXPECT_TRUE((*out)->WriteAt(uint64_t{1} << 40, bytes).has_value());
  EXPECT_TRUE((*out)->Sync().has_value() && (*out)->Close().has_value());
  EXPECT_TRUE(files->CreateDirectories(directory / "dropped/deep").has_value());
  EXPECT_TRUE(files->SyncDirectory(directory / "dropped").has_value());
  EXPECT_TRUE(WriteNewFile(*files, directory / "dropped/new", "text").has_value());
  EXPECT_FALSE(std::filesystem::exists(directory / "dropped"));
}

TEST(DiscardingFileSystem, ChangesNothingElse) {
  const TemporaryDirectory directory;
  const std::string input = directory / "input";
  ASSERT_TRUE(WriteNewFile(PosixFileSystem(), input, "bytes").has_value());
  const auto files = DiscardWrites(PosixFileSystem(), directory / "dropped");
  EXPECT_FALSE(files->OpenForWriting(input).has_value());
  EXPECT_FALSE(files->Create(directory / "dropped-not", 0).has_value());
  EXPECT_FALSE(files->CreateDirectory(directory / "made").has_value());
  EXPECT_FALSE(files->Remove(input).has_value());
  EXPECT_FALSE(files->Rename(input, directory / "dropped/x", RenameMode::kReplace).has_value());
  const auto lock = files->Lock(directory / "lock");
  EXPECT_EQ(ErrorOf(lock).kind(), ErrorKind::kInternal);
  EXPECT_EQ(ReadSmallFile(PosixFileSystem(), input, 100).value(), "bytes");
}

}  // namespace
}  // namespace mergepipe
