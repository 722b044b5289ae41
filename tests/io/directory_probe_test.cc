#include "mergepipe/io/directory_probe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "mergepipe/io/file.h"
#include "support/error_of.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

TEST(DirectoryProbe, FindsOutAndLeavesNothing) {
  const TemporaryDirectory directory;
  const auto abilities = ProbeDirectory(directory / "");
  ASSERT_TRUE(abilities.has_value()) << abilities.error().ToString();
  EXPECT_TRUE(abilities->locks);
  EXPECT_TRUE(abilities->spares_targets);
  EXPECT_TRUE(abilities->exchanges_names);
  EXPECT_TRUE(abilities->syncs);
  EXPECT_TRUE(std::filesystem::is_empty(directory / ""));
}

TEST(DirectoryProbe, SaysWhereNothingCanBeWritten) {
  const TemporaryDirectory directory;
  const auto missing = ProbeDirectory(directory / "none");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().kind(), ErrorKind::kIo);
  EXPECT_EQ(missing.error().problems()[0].subject, directory / "none");
  EXPECT_FALSE(ProbeDirectory("/proc").has_value());
}

TEST(DirectoryProbe, SeesALockWithoutTakingIt) {
  const TemporaryDirectory directory;
  const std::string path = directory / ".x.mergepipe.lock";
  EXPECT_FALSE(IsLocked(path).value());
  EXPECT_FALSE(std::filesystem::exists(path));
  {
    const auto lock = PosixFileSystem().Lock(path);
    ASSERT_TRUE(lock.has_value());
    EXPECT_TRUE(IsLocked(path).value());
  }
  std::ofstream(path).flush();  // as a killed process leaves it
  EXPECT_FALSE(IsLocked(path).value());
  EXPECT_TRUE(PosixFileSystem().Lock(path).has_value());
}

TEST(DirectoryProbe, DoesNotFollowALinkToSeeALock) {
  const TemporaryDirectory directory;
  std::ofstream(directory / "other").flush();
  std::filesystem::create_symlink("other", directory / "link");
  EXPECT_FALSE(IsLocked(directory / "link").has_value());
}

}  // namespace
}  // namespace mergepipe
