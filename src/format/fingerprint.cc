#include "mergepipe/format/model.h"

namespace mergepipe {
namespace {

constexpr uint64_t kSampleBytes = 4096;
constexpr uint64_t kSamples = 16;

Status HashFile(FileSystem& files, const std::string& path, const ModelFile& file, Hasher& hasher) {
  hasher.Update(uint64_t{file.name.size()});  // so that a name cannot run into what follows it
  hasher.Update(file.name);
  hasher.Update(file.info.size);
  hasher.Update(file.header_hash);
  MERGEPIPE_ASSIGN_OR_RETURN(const auto readable, files.OpenForReading(path));
  if (readable->size() != file.info.size) {
    return Fail(ErrorKind::kBadInput, path, "its size changed since its header was read",
                "run again when nothing writes to it");
  }
  std::vector<std::byte> buffer;
  for (const FileRange& sample : FingerprintSamples(file.data_begin, file.info.size)) {
    buffer.resize(sample.size);
    MERGEPIPE_RETURN_IF_ERROR(readable->ReadAt(sample.offset, buffer));
    hasher.Update(buffer);
  }
  return {};
}

}  // namespace

std::vector<FileRange> FingerprintSamples(uint64_t data_begin, uint64_t file_size) {
  if (file_size <= data_begin) return {};
  const uint64_t data_size = file_size - data_begin;
  if (data_size <= kSamples * kSampleBytes) return {{data_begin, data_size}};
  // Sample i starts at floor(i * span / 15), written so that the product cannot overflow. The
  // starts are at least 4096 apart, as span >= 15 * 4096: no two samples overlap.
  const uint64_t span = data_size - kSampleBytes;
  const uint64_t step = span / (kSamples - 1);
  const uint64_t rest = span % (kSamples - 1);
  std::vector<FileRange> samples;
  for (uint64_t i = 0; i < kSamples; ++i) {
    samples.push_back({data_begin + i * step + i * rest / (kSamples - 1), kSampleBytes});
  }
  return samples;
}

uint64_t FingerprintBytes(const ModelLayout& layout) {
  uint64_t bytes = 0;
  for (const ModelFile& file : layout.files) {
    for (const FileRange& sample : FingerprintSamples(file.data_begin, file.info.size))
      bytes += sample.size;
  }
  return bytes;
}

Result<Hash128> TakeFingerprint(FileSystem& files, const ModelLayout& layout) {
  Hasher hasher;
  for (uint32_t i = 0; i < layout.files.size(); ++i) {
    MERGEPIPE_RETURN_IF_ERROR(HashFile(files, layout.FilePath(i), layout.files[i], hasher));
  }
  return hasher.Finish();
}

}  // namespace mergepipe
