// Preloaded into a program (LD_PRELOAD), makes the calls that change a disk fail at a chosen one.
// An event is such a call on a path that has DISK_FAULT_PATH in it; events are counted over all
// threads of a process.
//
// - DISK_FAULT_PATH: what a path must contain.
// - DISK_FAULT_CALLS: which calls: s fsync and fdatasync, w writes, m mkdir, n renames, r removals
//   [all].
// - DISK_FAULT_FROM: count from the first event on whose path has this at its end [the first].
// - DISK_FAULT_AT: the number of the event, from 1, before which it happens.
// - DISK_FAULT_DO: "fail": that call, and no other, fails with EIO; "die": the file system of
//   DISK_FAULT_DISK fails from now on, whoever calls (ext4, as root); "power": the same, and the
//   process is killed: what was not synced is lost.
// - DISK_FAULT_RANK: only in the process of this MPI rank.
// - DISK_FAULT_LOG: a file that gets a line for each event, with its call and path.
//
// Not seen: memory-mapped stores, system calls that are made directly, and what stdio writes.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

// EXT4_IOC_SHUTDOWN of <ext4.h>, which no package has for programs; and its flag "flush nothing,
// not even the journal".
constexpr unsigned long kShutDown = 0x8004587d;
constexpr unsigned int kFlushNothing = 2;

std::string Setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

struct Settings {
  std::string path = Setting("DISK_FAULT_PATH");
  std::string calls = Setting("DISK_FAULT_CALLS");
  std::string from = Setting("DISK_FAULT_FROM");
  std::string what = Setting("DISK_FAULT_DO");
  std::string disk = Setting("DISK_FAULT_DISK");
  std::string log = Setting("DISK_FAULT_LOG");
  long at = std::atol(Setting("DISK_FAULT_AT").c_str());
  bool armed = !path.empty() && (Setting("DISK_FAULT_RANK").empty() ||
                                 Setting("DISK_FAULT_RANK") == Setting("OMPI_COMM_WORLD_RANK"));
};

const Settings& Chosen() {
  static const Settings chosen;
  return chosen;
}

std::atomic<bool> begun{false};
std::atomic<long> count{0};

template <typename F>
F* Next(F*, const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}
#define NEXT(function) static auto* const next = Next(&function, #function)

void Log(std::string_view call, std::string_view path) {
  const int log = ::open(Chosen().log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  const std::string line = std::string(call) + " " + std::string(path) + "\n";
  NEXT(write);
  if (log < 0 || next(log, line.data(), line.size()) < 0) std::abort();
  ::close(log);
}

void ShutDown() {
  const int disk = ::open(Chosen().disk.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  unsigned int flags = kFlushNothing;
  if (disk < 0 || ::ioctl(disk, kShutDown, &flags) != 0) {
    std::perror("disk_fault: cannot shut the disk down");
    std::abort();
  }
  ::close(disk);
}

// Whether the call is to fail.
bool Reach(char kind, const char* call, const std::string& path) {
  const Settings& chosen = Chosen();
  if (!chosen.armed || path.find(chosen.path) == std::string::npos) return false;
  if (!chosen.calls.empty() && chosen.calls.find(kind) == std::string::npos) return false;
  if (!begun && path.ends_with(chosen.from)) begun = true;
  if (!begun) return false;
  if (!chosen.log.empty()) Log(call, path);
  if (++count != chosen.at) return false;
  if (chosen.what == "die" || chosen.what == "power") ShutDown();
  if (chosen.what == "power") ::raise(SIGKILL);
  if (chosen.what == "fail") errno = EIO;
  return chosen.what == "fail";
}

bool Reach(char kind, const char* call, int descriptor) {
  if (!Chosen().armed) return false;
  std::array<char, 4096> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const ssize_t length = ::readlink(link.c_str(), path.data(), path.size());
  return length > 0 && Reach(kind, call, std::string(path.data(), static_cast<size_t>(length)));
}

bool ReachAt(char kind, const char* call, int directory, const char* name) {
  if (!Chosen().armed) return false;
  if (directory == AT_FDCWD || *name == '/') return Reach(kind, call, std::string(name));
  std::array<char, 4096> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(directory);
  const ssize_t length = ::readlink(link.c_str(), path.data(), path.size());
  if (length <= 0) return false;
  return Reach(kind, call, std::string(path.data(), static_cast<size_t>(length)) + "/" + name);
}

}  // namespace

extern "C" {

int fsync(int fd) {
  NEXT(fsync);
  return Reach('s', "fsync", fd) ? -1 : next(fd);
}
int fdatasync(int fd) {
  NEXT(fdatasync);
  return Reach('s', "fdatasync", fd) ? -1 : next(fd);
}
ssize_t write(int fd, const void* bytes, size_t size) {
  NEXT(write);
  return Reach('w', "write", fd) ? -1 : next(fd, bytes, size);
}
ssize_t pwrite(int fd, const void* bytes, size_t size, off_t at) {
  NEXT(pwrite);
  return Reach('w', "pwrite", fd) ? -1 : next(fd, bytes, size, at);
}
ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t at) {
  NEXT(pwrite64);
  return Reach('w', "pwrite", fd) ? -1 : next(fd, bytes, size, at);
}
ssize_t copy_file_range(int in, off64_t* in_at, int out, off64_t* out_at, size_t size,
                        unsigned int flags) {
  NEXT(copy_file_range);
  return Reach('w', "copy_file_range", out) ? -1 : next(in, in_at, out, out_at, size, flags);
}
int mkdir(const char* path, mode_t mode) noexcept {
  NEXT(mkdir);
  return Reach('m', "mkdir", std::string(path)) ? -1 : next(path, mode);
}
// Of a rename, the path is the new name.
int rename(const char* from, const char* to) noexcept {
  NEXT(rename);
  return Reach('n', "rename", std::string(to)) ? -1 : next(from, to);
}
int renameat2(int from_at, const char* from, int to_at, const char* to,
              unsigned int flags) noexcept {
  NEXT(renameat2);
  return ReachAt('n', "rename", to_at, to) ? -1 : next(from_at, from, to_at, to, flags);
}
int unlink(const char* path) noexcept {
  NEXT(unlink);
  return Reach('r', "unlink", std::string(path)) ? -1 : next(path);
}
int unlinkat(int directory, const char* name, int flags) noexcept {
  NEXT(unlinkat);
  return ReachAt('r', "unlink", directory, name) ? -1 : next(directory, name, flags);
}
int rmdir(const char* path) noexcept {
  NEXT(rmdir);
  return Reach('r', "rmdir", std::string(path)) ? -1 : next(path);
}

}  // extern "C"
