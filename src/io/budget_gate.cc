#include "mergepipe/io/budget_gate.h"

#include <algorithm>

namespace mergepipe {
namespace {

class GatedFile final : public ReadableFile {
 public:
  GatedFile(std::unique_ptr<ReadableFile> file, BudgetShare& share, uint64_t free_until)
      : file_(std::move(file)), share_(share), free_until_(free_until) {}

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    const uint64_t free =
        offset >= free_until_ ? 0 : std::min<uint64_t>(out.size(), free_until_ - offset);
    MERGEPIPE_RETURN_IF_ERROR(share_.Spend(Bytes(out.size() - free), path()));
    return file_->ReadAt(offset, out);
  }
  uint64_t size() const override { return file_->size(); }
  const std::string& path() const override { return file_->path(); }

 private:
  std::unique_ptr<ReadableFile> file_;
  BudgetShare& share_;
  uint64_t free_until_;
};

class GatedFileSystem final : public FileSystem {
 public:
  GatedFileSystem(FileSystem& files, BudgetShare& share) : files_(files), share_(share) {}

  Result<std::unique_ptr<ReadableFile>> OpenForReading(const std::string& path) override {
    MERGEPIPE_ASSIGN_OR_RETURN(auto file, files_.OpenForReading(path));
    return GateReads(std::move(file), share_, 0);
  }
  Result<std::unique_ptr<ReadableFile>> OpenForStreaming(const std::string& path,
                                                         TransferMode mode) override {
    MERGEPIPE_ASSIGN_OR_RETURN(auto file, files_.OpenForStreaming(path, mode));
    return GateReads(std::move(file), share_, 0);
  }
  Result<FileInfo> Stat(const std::string& path) override { return files_.Stat(path); }
  Result<bool> Exists(const std::string& path) override { return files_.Exists(path); }
  Result<std::vector<DirectoryEntry>> List(const std::string& path) override {
    return files_.List(path);
  }
  Result<uint64_t> FreeSpace(const std::string& path) override { return files_.FreeSpace(path); }
  Result<DiskTraits> TraitsOf(const std::string& path) override { return files_.TraitsOf(path); }

  Result<std::unique_ptr<WritableFile>> Create(const std::string& path, uint64_t) override {
    return ReadOnly(path);
  }
  Result<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    return ReadOnly(path);
  }
  Status CreateDirectories(const std::string& path) override { return ReadOnly(path); }
  Result<bool> CreateDirectory(const std::string& path) override { return ReadOnly(path); }
  Status SyncDirectory(const std::string& path) override { return ReadOnly(path); }
  Status Rename(const std::string&, const std::string& to, RenameMode) override {
    return ReadOnly(to);
  }
  Status Remove(const std::string& path) override { return ReadOnly(path); }
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    return ReadOnly(path);
  }

 private:
  static tl::unexpected<Error> ReadOnly(const std::string& path) {
    return Fail(ErrorKind::kInternal, path, "is an input, and inputs are only read",
                "please report this defect");
  }

  FileSystem& files_;
  BudgetShare& share_;
};

class CountedFile final : public ReadableFile {
 public:
  CountedFile(std::unique_ptr<ReadableFile> file, std::atomic<uint64_t>& counter, bool copies)
      : file_(std::move(file)), counter_(counter), copies_(copies) {}

  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    counter_.fetch_add(out.size(), std::memory_order_relaxed);
    return file_->ReadAt(offset, out);
  }
  uint64_t size() const override { return file_->size(); }
  const std::string& path() const override { return file_->path(); }
  int descriptor() const override { return copies_ ? file_->descriptor() : -1; }

 private:
  std::unique_ptr<ReadableFile> file_;
  std::atomic<uint64_t>& counter_;
  bool copies_;
};

}  // namespace

Status BudgetShare::Spend(Bytes amount, const std::string& subject) {
  uint64_t spent = spent_.load(std::memory_order_relaxed);
  do {
    if (amount.count() > limit_.count() - spent) {
      return Fail(ErrorKind::kInternal, subject,
                  "a read of " + std::to_string(amount.count()) +
                      " bytes is over the budget share of " + std::to_string(limit_.count()) +
                      " (spent: " + std::to_string(spent) + ")",
                  "please report this defect");
    }
  } while (!spent_.compare_exchange_weak(spent, spent + amount.count(), std::memory_order_relaxed));
  return {};
}

std::unique_ptr<ReadableFile> GateReads(std::unique_ptr<ReadableFile> file, BudgetShare& share,
                                        uint64_t free_until) {
  return std::make_unique<GatedFile>(std::move(file), share, free_until);
}

std::unique_ptr<FileSystem> GateAllReads(FileSystem& files, BudgetShare& share) {
  return std::make_unique<GatedFileSystem>(files, share);
}

std::unique_ptr<ReadableFile> CountReads(std::unique_ptr<ReadableFile> file,
                                         std::atomic<uint64_t>& counter) {
  return std::make_unique<CountedFile>(std::move(file), counter, false);
}

std::unique_ptr<ReadableFile> CountReadsButCopies(std::unique_ptr<ReadableFile> file,
                                                  std::atomic<uint64_t>& counter) {
  return std::make_unique<CountedFile>(std::move(file), counter, true);
}

}  // namespace mergepipe
