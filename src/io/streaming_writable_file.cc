#include <algorithm>
#include <atomic>
#include <cerrno>

#include "io/direct_file.h"
#include "io/disk_traits.h"
#include "io/page_cache.h"
#include "io/posix_writable_file.h"
#include "io/transfer.h"
#include "mergepipe/base/units.h"

namespace mergepipe {
namespace {

constexpr uint64_t kWritebackStep = 32 * kMiB;
constexpr uint64_t kCopyPiece = 16 * kMiB;

// A page is written either direct, which happens only if one caller owns all of it, or buffered:
// two callers that share a page meet in the page cache, where the kernel keeps the bytes of both.
class StreamingWritableFile final : public WritableFile {
 public:
  StreamingWritableFile(OpenedFile file, std::unique_ptr<DirectFile> direct, std::string path,
                        bool kernel_copies)
      : fd_(std::move(file.fd)),
        direct_(std::move(direct)),
        path_(std::move(path)),
        kernel_copies_(kernel_copies) {
    // Clean pages left of an earlier reader may lie in folios larger than a page. If a neighbour
    // dirties a part of such a folio while another part is written direct, fsync fails.
    if (direct_) DropAllPages(fd_.get());
  }

  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) override {
    const PageSplit split = SplitAtPages(bytes.data(), offset, bytes.size());
    if (!GoesDirect() || split.interior < kMinDirect) {
      return WriteBuffered(offset, bytes);
    }
    MERGEPIPE_RETURN_IF_ERROR(WriteBuffered(offset, bytes.first(split.head)));
    MERGEPIPE_ASSIGN_OR_RETURN(
        const size_t moved,
        direct_->WriteAt(offset + split.head, bytes.subspan(split.head, split.interior)));
    const size_t done = split.head + moved;
    return WriteBuffered(offset + done, bytes.subspan(done));
  }

  Status CopyFrom(ReadableFile& source, uint64_t from, uint64_t to, uint64_t length) override {
    uint64_t done = 0;
    if (source.descriptor() >= 0) {
      MERGEPIPE_ASSIGN_OR_RETURN(done, kernel_copies_ ? CopyByKernelFrom(source, from, to, length)
                                                      : CloneFrom(source, from, to, length));
    }
    return WritableFile::CopyFrom(source, from + done, to + done, length - done);
  }

  Status Sync() override {
    if (SyncRetrying(fd_.get()) != 0) return tl::unexpected(SystemError(errno, path_, "sync"));
    DropAllPages(fd_.get());
    return {};
  }

  Status Close() override {
    const Status status = direct_ ? direct_->Close() : Status();
    MERGEPIPE_RETURN_IF_ERROR(fd_.Close(path_));
    return status;
  }

  const std::string& path() const override { return path_; }

 private:
  Status WriteBuffered(uint64_t offset, std::span<const std::byte> bytes) {
    MERGEPIPE_RETURN_IF_ERROR(WriteExactly(fd_.get(), path_, offset, bytes));
    CountBuffered(bytes.size());
    return {};
  }

  void CountBuffered(uint64_t bytes) {
    const uint64_t before = buffered_.fetch_add(bytes, std::memory_order_relaxed);
    if (before / kWritebackStep != (before + bytes) / kWritebackStep) StartWriteback(fd_.get());
  }

  bool GoesDirect() const { return direct_ && direct_->usable(); }

  // Shares the whole blocks of the range with the source, and copies what is before them. Returns
  // how much that is: nothing where the filesystem cannot, or where the blocks do not match.
  Result<uint64_t> CloneFrom(ReadableFile& source, uint64_t from, uint64_t to, uint64_t length) {
    const PageSplit split = SplitAtOffsets(from, to, length);
    if (split.interior == 0 || !clones_.load(std::memory_order_relaxed)) return 0;
    if (!CloneByKernel(source.descriptor(), from + split.head, fd_.get(), to + split.head,
                       split.interior)) {
      clones_.store(false, std::memory_order_relaxed);
      return 0;
    }
    MERGEPIPE_RETURN_IF_ERROR(WritableFile::CopyFrom(source, from, to, split.head));
    return split.head + split.interior;
  }

  Result<uint64_t> CopyByKernelFrom(ReadableFile& source, uint64_t from, uint64_t to,
                                    uint64_t length) {
    uint64_t done = 0;
    while (done < length) {
      const uint64_t piece = std::min(length - done, kCopyPiece);
      MERGEPIPE_ASSIGN_OR_RETURN(const uint64_t copied,
                                 CopyPiece(source.descriptor(), from + done, to + done, piece));
      CountBuffered(copied);
      done += copied;
      if (copied < piece) break;
    }
    return done;
  }

  // Leaves the source in the page cache as it was.
  Result<uint64_t> CopyPiece(int source, uint64_t from, uint64_t to, uint64_t length) {
    const auto runs = CachedRuns(source, from, from + length);
    auto copied = CopyByKernel(source, from, fd_.get(), to, length, path_);
    for (const CacheRun& run : runs.value_or(std::vector<CacheRun>())) {
      if (!run.cached) DropPages(source, run.begin, run.end);
    }
    return copied;
  }

  Descriptor fd_;
  std::unique_ptr<DirectFile> direct_;
  std::string path_;
  bool kernel_copies_;
  std::atomic<uint64_t> buffered_{0};
  std::atomic<bool> clones_{true};
};

}  // namespace

Result<std::unique_ptr<WritableFile>> OpenPosixForWriting(const std::string& path,
                                                          TransferMode mode) {
  MERGEPIPE_ASSIGN_OR_RETURN(OpenedFile file, OpenRegular(path, O_WRONLY));
  const DiskTraits disk = DiskTraitsOf(file.fd.get());
  auto direct = OpenDirect(path, file, O_WRONLY, mode, disk);
  // Where a server may do the copying. On one's own disk the kernel would copy through the page
  // cache, a few pages at a time.
  const bool kernel_copies =
      mode == TransferMode::kBuffered || (mode == TransferMode::kAuto && disk.network);
  return std::make_unique<StreamingWritableFile>(std::move(file), std::move(direct), path,
                                                 kernel_copies);
}

}  // namespace mergepipe
