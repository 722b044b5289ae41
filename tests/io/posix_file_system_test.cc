// What only the real file system has: links, pipes, modes, other processes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "mergepipe/io/file.h"
#include "support/temporary_directory.h"

namespace mergepipe {
namespace {

class PosixFiles : public testing::Test {
 protected:
  // Ends the test program should a call block.
  void SetUp() override { ::alarm(60); }
  void TearDown() override { ::alarm(0); }

  FileSystem& files_ = PosixFileSystem();
  TemporaryDirectory directory_;
};

struct stat StatOf(const std::string& path) {
  struct stat st {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
  return st;
}

TEST_F(PosixFiles, CreateHonoursTheUmask) {
  const mode_t before = ::umask(027);
  EXPECT_TRUE(files_.Create(directory_ / "f", 0));
  EXPECT_TRUE(files_.CreateDirectory(directory_ / "d").value());
  ::umask(0);
  EXPECT_TRUE(files_.Create(directory_ / "g", 0));
  ::umask(before);
  EXPECT_EQ(StatOf(directory_ / "f").st_mode & 07777u, 0640u);
  EXPECT_EQ(StatOf(directory_ / "d").st_mode & 07777u, 0750u);
  EXPECT_EQ(StatOf(directory_ / "g").st_mode & 07777u, 0666u);
}

TEST_F(PosixFiles, CreateAllocatesWhereItCan) {
  constexpr off_t kSize = off_t{1} << 20;
  const int probe = ::open((directory_ / "probe").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(probe, 0);
  const bool can = ::fallocate(probe, 0, 0, kSize) == 0;
  ::close(probe);

  ASSERT_TRUE(files_.Create(directory_ / "f", static_cast<uint64_t>(kSize)));
  EXPECT_EQ(StatOf(directory_ / "f").st_size, kSize);
  if (!can) GTEST_SKIP() << "no fallocate here";
  EXPECT_GE(StatOf(directory_ / "f").st_blocks * 512, kSize);
}

TEST_F(PosixFiles, AFileThatCannotBeAllocatedIsRemoved) {
  const auto file = files_.Create(directory_ / "f", UINT64_MAX);
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().kind(), ErrorKind::kBadInput);
  EXPECT_FALSE(files_.Exists(directory_ / "f").value());
}

TEST_F(PosixFiles, PipesAndDevicesAreRefusedAtOnce) {
  ASSERT_EQ(::mkfifo((directory_ / "pipe").c_str(), 0600), 0);
  std::filesystem::create_symlink("pipe", directory_ / "link");
  for (const std::string& path : {directory_ / "pipe", directory_ / "link",
                                  std::string("/dev/null"), std::string("/dev/zero")}) {
    const auto reading = files_.OpenForReading(path);
    ASSERT_FALSE(reading) << path;
    EXPECT_EQ(reading.error().kind(), ErrorKind::kBadInput);
    EXPECT_FALSE(files_.OpenForWriting(path)) << path;
    EXPECT_EQ(files_.Stat(path)->kind, FileKind::kOther) << path;
  }
}

TEST_F(PosixFiles, LinksAreFollowedForReading) {
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "blob", "text"));
  std::filesystem::create_symlink("blob", directory_ / "link");
  EXPECT_EQ(ReadSmallFile(files_, directory_ / "link", 100).value(), "text");
  EXPECT_EQ(files_.Stat(directory_ / "link").value(), files_.Stat(directory_ / "blob").value());
  EXPECT_FALSE(files_.Create(directory_ / "link", 1));
}

TEST_F(PosixFiles, ADanglingLinkIsThereAndLeadsNowhere) {
  std::filesystem::create_symlink("nowhere", directory_ / "link");
  std::filesystem::create_symlink("loop", directory_ / "loop");
  EXPECT_TRUE(files_.Exists(directory_ / "link").value());
  EXPECT_TRUE(files_.Exists(directory_ / "loop").value());
  EXPECT_EQ(files_.Stat(directory_ / "link").error().kind(), ErrorKind::kBadInput);
  EXPECT_EQ(files_.OpenForReading(directory_ / "link").error().kind(), ErrorKind::kBadInput);
  EXPECT_EQ(files_.OpenForReading(directory_ / "loop").error().kind(), ErrorKind::kBadInput);
  // O_EXCL: a new file must not be made through a link.
  EXPECT_FALSE(files_.Create(directory_ / "link", 1));
  EXPECT_FALSE(files_.Exists(directory_ / "nowhere").value());
}

TEST_F(PosixFiles, ALinkInACircleLeadsNowhere) {
  ASSERT_EQ(::symlink("circle", (directory_ / "circle").c_str()), 0);
  const auto info = files_.Stat(directory_ / "circle");
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().kind(), ErrorKind::kBadInput);
}

// Where others may write, the lock's name could lead to any file of ours.
TEST_F(PosixFiles, ALockIsNotMadeThroughALink) {
  ASSERT_EQ(::symlink("elsewhere", (directory_ / "lock").c_str()), 0);
  EXPECT_FALSE(files_.Lock(directory_ / "lock"));
  EXPECT_FALSE(files_.Exists(directory_ / "elsewhere").value());
}

TEST_F(PosixFiles, ListTellsLinksAndWhatTheyLeadTo) {
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "a-file", ""));
  ASSERT_TRUE(files_.CreateDirectory(directory_ / "b-directory"));
  std::filesystem::create_symlink("a-file", directory_ / "c-to-file");
  std::filesystem::create_symlink("b-directory", directory_ / "d-to-directory");
  std::filesystem::create_symlink("nowhere", directory_ / "e-dangling");
  ASSERT_EQ(::mkfifo((directory_ / "f-pipe").c_str(), 0600), 0);

  const auto entries = files_.List(directory_.path()).value();
  ASSERT_EQ(entries.size(), 6u);
  const auto expect = [&](size_t at, const char* name, FileKind kind, bool is_symlink) {
    EXPECT_EQ(entries[at].name, name);
    EXPECT_EQ(entries[at].kind, kind) << name;
    EXPECT_EQ(entries[at].is_symlink, is_symlink) << name;
  };
  expect(0, "a-file", FileKind::kRegular, false);
  expect(1, "b-directory", FileKind::kDirectory, false);
  expect(2, "c-to-file", FileKind::kRegular, true);
  expect(3, "d-to-directory", FileKind::kDirectory, true);
  expect(4, "e-dangling", FileKind::kOther, true);
  expect(5, "f-pipe", FileKind::kOther, false);
}

TEST_F(PosixFiles, RemoveDoesNotFollowLinks) {
  ASSERT_TRUE(files_.CreateDirectories(directory_ / "kept"));
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "kept/f", "text"));
  ASSERT_TRUE(files_.CreateDirectories(directory_ / "tree/sub"));
  std::filesystem::create_symlink("../kept", directory_ / "tree/link");
  std::filesystem::create_symlink("../../kept/f", directory_ / "tree/sub/link");
  std::filesystem::create_symlink("kept", directory_ / "link");
  EXPECT_TRUE(files_.Remove(directory_ / "tree"));
  EXPECT_TRUE(files_.Remove(directory_ / "link"));
  EXPECT_FALSE(files_.Exists(directory_ / "tree").value());
  EXPECT_FALSE(files_.Exists(directory_ / "link").value());
  EXPECT_EQ(ReadSmallFile(files_, directory_ / "kept/f", 100).value(), "text");
}

TEST_F(PosixFiles, AFileCutWhileOpenIsBadInput) {
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "f", "0123456789"));
  const auto file = files_.OpenForReading(directory_ / "f").value();
  ASSERT_EQ(::truncate((directory_ / "f").c_str(), 4), 0);
  std::array<std::byte, 8> out{};
  const Status status = file->ReadAt(0, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind(), ErrorKind::kBadInput);
}

TEST_F(PosixFiles, StatShowsARewrite) {
  ASSERT_TRUE(WriteNewFile(files_, directory_ / "f", "text"));
  const FileInfo before = files_.Stat(directory_ / "f").value();
  struct timespec times[2] = {{.tv_sec = 1, .tv_nsec = 5}, {.tv_sec = 2, .tv_nsec = 7}};
  ASSERT_EQ(::utimensat(AT_FDCWD, (directory_ / "f").c_str(), times, 0), 0);
  const FileInfo after = files_.Stat(directory_ / "f").value();
  EXPECT_EQ(after.mtime_ns, 2'000'000'007);
  EXPECT_NE(after, before);
}

// Another process that takes the lock at `path` and keeps it until it is killed.
class Holder {
 public:
  explicit Holder(const std::string& path) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const auto lock = PosixFileSystem().Lock(path);
      const char answer = lock ? 'y' : 'n';
      if (::write(ends[1], &answer, 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    EXPECT_EQ(::read(ends[0], &answer_, 1), 1);
    ::close(ends[0]);
    ::close(ends[1]);
  }
  ~Holder() { Kill(); }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  bool has_it() const { return answer_ == 'y'; }
  void Kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
  char answer_ = '?';
};

TEST_F(PosixFiles, ALockOfAnotherProcessIsRespectedAndDiesWithIt) {
  const std::string path = directory_ / "lock";
  Holder holder(path);
  ASSERT_TRUE(holder.has_it());
  const auto refused = files_.Lock(path);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::kUsage);
  EXPECT_EQ(refused.error().problems()[0].subject, path);

  holder.Kill();
  EXPECT_TRUE(files_.Exists(path).value()) << "a killed holder cannot remove its file";
  EXPECT_TRUE(files_.Lock(path));
  EXPECT_FALSE(files_.Exists(path).value());
}

TEST_F(PosixFiles, OurLockIsRespectedByAnotherProcess) {
  const std::string path = directory_ / "lock";
  auto lock = files_.Lock(path);
  ASSERT_TRUE(lock);
  EXPECT_FALSE(Holder(path).has_it());
  EXPECT_TRUE(files_.Exists(path).value()) << "the refused one must leave the file alone";
  lock->reset();
  EXPECT_TRUE(Holder(path).has_it());
}

}  // namespace
}  // namespace mergepipe
