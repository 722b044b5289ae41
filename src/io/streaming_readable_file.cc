#include <atomic>

#include "io/direct_file.h"
#include "io/disk_traits.h"
#include "io/page_cache.h"
#include "io/posix_readable_file.h"
#include "io/transfer.h"

namespace mergepipe {
namespace {

class StreamingReadableFile final : public ReadableFile {
 public:
  StreamingReadableFile(OpenedFile file, std::unique_ptr<DirectFile> direct, std::string path,
                        const DiskTraits& disk)
      : fd_(std::move(file.fd)),
        direct_(std::move(direct)),
        path_(std::move(path)),
        size_(static_cast<uint64_t>(file.info.st_size)) {
    // What is read next is known to the caller alone; the kernel's guess would be read in vain.
    // Over a network the guess is short, and a copy by the kernel would wait for every few pages.
    if (!disk.network) ::posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_RANDOM);
  }

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    if (out.empty()) return {};
    if (offset > size_ || out.size() > size_ - offset) {
      return ReadExactly(fd_.get(), path_, offset, out);
    }
    if (kernel_tells_.load(std::memory_order_relaxed)) {
      if (const auto runs = CachedRuns(fd_.get(), offset, offset + out.size())) {
        return ReadRuns(*runs, offset, out);
      }
      kernel_tells_.store(false, std::memory_order_relaxed);
    }
    return ReadByTrial(offset, out);
  }

  uint64_t size() const override { return size_; }
  const std::string& path() const override { return path_; }
  int descriptor() const override { return fd_.get(); }

 private:
  Status ReadRuns(const std::vector<CacheRun>& runs, uint64_t offset, std::span<std::byte> out) {
    // All disk requests first: where a range is cached in shreds, they do not wait for each other.
    for (const CacheRun& run : runs) {
      if (!run.cached && run.end - run.begin < kMinDirect) Prefetch(fd_.get(), run.begin, run.end);
    }
    for (const CacheRun& run : runs) {
      const auto part = out.subspan(run.begin - offset, run.end - run.begin);
      MERGEPIPE_RETURN_IF_ERROR(run.cached ? ReadExactly(fd_.get(), path_, run.begin, part)
                                           : ReadUncached(run.begin, part));
    }
    return {};
  }

  Status ReadByTrial(uint64_t offset, std::span<std::byte> out) {
    const size_t cached = ReadCached(fd_.get(), offset, out);
    if (cached == 0) return ReadUncached(offset, out);
    return ReadBuffered(offset + cached, out.subspan(cached));
  }

  Status ReadUncached(uint64_t offset, std::span<std::byte> out) {
    const PageSplit split = SplitAtPages(out.data(), offset, out.size());
    if (!direct_ || !direct_->usable() || split.interior < kMinDirect) {
      return ReadBuffered(offset, out);
    }
    const uint64_t tail = offset + split.head + split.interior;
    if (split.head > 0) Prefetch(fd_.get(), offset, offset + split.head);
    if (tail < offset + out.size()) Prefetch(fd_.get(), tail, offset + out.size());
    MERGEPIPE_ASSIGN_OR_RETURN(
        const size_t moved,
        direct_->ReadAt(offset + split.head, out.subspan(split.head, split.interior)));
    const size_t done = split.head + moved;
    MERGEPIPE_RETURN_IF_ERROR(ReadBuffered(offset + done, out.subspan(done)));
    const Status status = ReadExactly(fd_.get(), path_, offset, out.first(split.head));
    // Also where the head is empty: a trial has left its page.
    DropPages(fd_.get(), offset, offset + 1);
    return status;
  }

  Status ReadBuffered(uint64_t offset, std::span<std::byte> out) {
    if (out.empty()) return {};
    Prefetch(fd_.get(), offset, offset + out.size());
    const Status status = ReadExactly(fd_.get(), path_, offset, out);
    DropPages(fd_.get(), offset, offset + out.size());
    return status;
  }

  Descriptor fd_;
  std::unique_ptr<DirectFile> direct_;
  std::string path_;
  uint64_t size_;
  std::atomic<bool> kernel_tells_{true};
};

}  // namespace

Result<std::unique_ptr<ReadableFile>> OpenPosixForStreaming(const std::string& path,
                                                            TransferMode mode) {
  MERGEPIPE_ASSIGN_OR_RETURN(OpenedFile file, OpenRegular(path, O_RDONLY));
  const DiskTraits disk = DiskTraitsOf(file.fd.get());
  auto direct = OpenDirect(path, file, O_RDONLY, mode, disk);
  return std::make_unique<StreamingReadableFile>(std::move(file), std::move(direct), path, disk);
}

}  // namespace mergepipe
