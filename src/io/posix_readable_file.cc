#include "io/posix_readable_file.h"

#include "io/descriptor.h"
#include "io/transfer.h"

namespace mergepipe {
namespace {

class PosixReadableFile final : public ReadableFile {
 public:
  PosixReadableFile(Descriptor fd, std::string path, uint64_t size)
      : fd_(std::move(fd)), path_(std::move(path)), size_(size) {}

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    return ReadExactly(fd_.get(), path_, offset, out);
  }
  uint64_t size() const override { return size_; }
  const std::string& path() const override { return path_; }
  int descriptor() const override { return fd_.get(); }

 private:
  Descriptor fd_;
  std::string path_;
  uint64_t size_;
};

}  // namespace

Result<std::unique_ptr<ReadableFile>> OpenPosixForReading(const std::string& path) {
  MERGEPIPE_ASSIGN_OR_RETURN(OpenedFile file, OpenRegular(path, O_RDONLY));
  return std::make_unique<PosixReadableFile>(std::move(file.fd), path,
                                             static_cast<uint64_t>(file.info.st_size));
}

}  // namespace mergepipe
