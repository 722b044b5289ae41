// The ceiling for a merge: reads all bytes of some files and writes a file of so many bytes, and
// does nothing else with them. Prints what it took as JSON.
//
// Some threads take pieces from one list: each reading of a piece is one pread into the thread's
// buffer, each writing one pwrite from it. The readings are in file order; the writings are spread
// evenly among them (a merge has its first output once it has read a bit of every input), or come
// after all of them. At the end the file is synced. Buffered reads and writes, no hints to the
// kernel, buffers touched before the clock starts; the clock ends after fsync.

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace mergepipe {
namespace {

struct Arguments {
  std::vector<std::string> files;
  std::string write;
  uint64_t write_bytes = 0;
  size_t threads = std::max(1U, std::thread::hardware_concurrency());
  uint64_t piece_mib = 16;
  bool after = false;
};

[[noreturn]] void FailWith(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

class File {
 public:
  File(const std::string& path, int flags) : path_(path), fd_(::open(path.c_str(), flags, 0644)) {
    if (fd_ < 0) FailWith(path);
  }
  File(File&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }

  uint64_t Size() const {
    const off_t size = ::lseek(fd_, 0, SEEK_END);
    if (size < 0) FailWith(path_);
    return static_cast<uint64_t>(size);
  }
  void Read(uint64_t offset, std::byte* data, uint64_t size) const {
    Whole(size, [&](uint64_t at) {
      return ::pread(fd_, data + at, size - at, static_cast<off_t>(offset + at));
    });
  }
  void Write(uint64_t offset, const std::byte* data, uint64_t size) const {
    Whole(size, [&](uint64_t at) {
      return ::pwrite(fd_, data + at, size - at, static_cast<off_t>(offset + at));
    });
  }
  void Sync() const {
    if (::fsync(fd_) != 0) FailWith(path_);
  }

 private:
  template <typename Call>
  void Whole(uint64_t size, Call&& call) const {
    for (uint64_t at = 0; at < size;) {
      const ssize_t done = call(at);
      if (done < 0) FailWith(path_);
      if (done == 0) throw std::runtime_error(path_ + ": became shorter");
      at += static_cast<uint64_t>(done);
    }
  }

  std::string path_;
  int fd_;
};

struct Piece {
  const File* file;
  uint64_t offset;
  uint64_t size;
  bool write;
};

void AddPieces(const File& file, uint64_t size, uint64_t piece, bool write,
               std::vector<Piece>& pieces) {
  for (uint64_t at = 0; at < size; at += piece)
    pieces.push_back({&file, at, std::min(piece, size - at), write});
}

// The n-th writing comes where the same share of the readings is done.
std::vector<Piece> Interleave(const std::vector<Piece>& reads, const std::vector<Piece>& writes) {
  std::vector<Piece> all;
  size_t written = 0;
  for (size_t i = 0; i < reads.size(); ++i) {
    all.push_back(reads[i]);
    for (; written < writes.size() && (written + 1) * reads.size() <= (i + 1) * writes.size();)
      all.push_back(writes[written++]);
  }
  all.insert(all.end(), writes.begin() + static_cast<std::ptrdiff_t>(written), writes.end());
  return all;
}

// Every thread has a buffer of its own, touched before the clock starts.
class Pool {
 public:
  Pool(size_t threads, uint64_t piece)
      : buffers_(threads, std::vector<std::byte>(piece, std::byte{0x5a})) {}

  void Do(const std::vector<Piece>& pieces) {
    std::atomic<size_t> next{0};
    std::vector<std::exception_ptr> failures(buffers_.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < buffers_.size(); ++i) {
      threads.emplace_back([&, i] {
        try {
          for (size_t p = next++; p < pieces.size(); p = next++) Move(pieces[p], buffers_[i]);
        } catch (...) {
          failures[i] = std::current_exception();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& failure : failures) {
      if (failure) std::rethrow_exception(failure);
    }
  }

 private:
  static void Move(const Piece& piece, std::vector<std::byte>& buffer) {
    if (piece.write) {
      piece.file->Write(piece.offset, buffer.data(), piece.size);
    } else {
      piece.file->Read(piece.offset, buffer.data(), piece.size);
    }
  }

  std::vector<std::vector<std::byte>> buffers_;
};

nlohmann::ordered_json Measure(const Arguments& arguments) {
  const uint64_t piece = arguments.piece_mib << 20;
  std::vector<File> files;
  files.reserve(arguments.files.size() + 1);  // pieces point to them
  std::vector<Piece> reads;
  uint64_t read_bytes = 0;
  for (const std::string& path : arguments.files) {
    const File& file = files.emplace_back(path, O_RDONLY | O_CLOEXEC);
    AddPieces(file, file.Size(), piece, false, reads);
    read_bytes += file.Size();
  }
  std::vector<Piece> writes;
  if (!arguments.write.empty()) {
    const File& out = files.emplace_back(arguments.write, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC);
    AddPieces(out, arguments.write_bytes, piece, true, writes);
  }
  Pool pool(arguments.threads, piece);

  const auto start = std::chrono::steady_clock::now();
  if (arguments.after) {
    pool.Do(reads);
    pool.Do(writes);
  } else {
    pool.Do(Interleave(reads, writes));
  }
  if (!writes.empty()) writes.front().file->Sync();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {{"seconds", seconds},
          {"read_bytes", read_bytes},
          {"written_bytes", writes.empty() ? 0 : arguments.write_bytes},
          {"threads", arguments.threads}};
}

}  // namespace
}  // namespace mergepipe

int main(int argc, char** argv) {
  mergepipe::Arguments arguments;
  CLI::App app("Reads files and writes one as fast as plain large reads and writes do.");
  app.add_option("--read", arguments.files, "files to read");
  auto* write = app.add_option("--write", arguments.write, "a file to make and sync");
  app.add_option("--bytes", arguments.write_bytes, "its size")->needs(write);
  app.add_option("--threads", arguments.threads)->check(CLI::Range(1, 1024));
  app.add_option("--piece-mb", arguments.piece_mib, "MiB of a read or write")
      ->check(CLI::Range(1, 1024));
  app.add_flag("--after", arguments.after, "write after reading, not meanwhile");
  CLI11_PARSE(app, argc, argv);
  try {
    std::cout << mergepipe::Measure(arguments).dump() << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "io_limit: " << error.what() << "\n";
    return 5;
  }
}
