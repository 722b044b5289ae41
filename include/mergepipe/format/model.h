#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mergepipe/base/checked.h"
#include "mergepipe/base/dtype.h"
#include "mergepipe/base/error.h"
#include "mergepipe/base/hash.h"
#include "mergepipe/io/file.h"

namespace mergepipe {

/// One stored tensor: row-major, `elements()` elements of `dtype` at `offset` of its file.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  uint32_t file = 0;    ///< index into ModelLayout::files
  uint64_t offset = 0;  ///< absolute, in bytes from the start of the file

  uint64_t elements() const { return *CheckedProduct(shape); }  // checked when it was read
  uint64_t bytes() const { return elements() * DTypeSize(dtype); }
  bool operator==(const TensorInfo&) const = default;
};

/// One weight file of a model, as its header describes it.
struct ModelFile {
  std::string name;         ///< relative to the model's directory, without '/'
  FileInfo info;            ///< as it was when the header was read
  uint64_t data_begin = 0;  ///< first byte of the data: everything before is header
  Hash128 header_hash;      ///< over bytes [0, data_begin)
  std::map<std::string, std::string> metadata;  ///< safetensors `__metadata__`

  bool operator==(const ModelFile&) const = default;
};

/// What config.json says that matters to a merge, at its top level or in `text_config` (where
/// multimodal models keep the language model's part). `tie_word_embeddings` is true if either place
/// says so.
struct ModelConfig {
  bool present = false;
  bool tie_word_embeddings = false;
  /// quantization_config.quant_method, or "unnamed"; empty if there is none.
  std::string quantization;

  bool operator==(const ModelConfig&) const = default;
};

/// Everything that the headers of a checkpoint tell. Weights are not read.
struct ModelLayout {
  std::string path;       ///< as given: a directory, or one weight file
  std::string directory;  ///< where the files are
  bool is_directory = true;
  std::vector<ModelFile> files;           ///< in index order: sorted by name
  std::vector<TensorInfo> tensors;        ///< in file order, within a file by offset
  std::optional<std::string> index_name;  ///< "model.safetensors.index.json" if sharded
  ModelConfig config;

  std::string FilePath(uint32_t file) const { return JoinPath(directory, files[file].name); }
  uint64_t WeightBytes() const;
};

/// Whether nothing says that one layout's tensors, or what they stand for, are not the other's: the
/// same files (name, size, time, inode, header) and the same config. Not the device: its number may
/// change when a filesystem is mounted again.
bool LooksUnchanged(const ModelLayout& a, const ModelLayout& b);

/// Reads the headers of the checkpoint at `path` (a directory in the Hugging Face layout, or one
/// .safetensors file) and checks every rule of the format: see format/safetensors.h. All problems
/// of all files are reported together, as kBadInput. Layouts that are not supported (FP8 and other
/// quantised ones, pytorch_model.bin, GGUF, adapters) are refused by name.
Result<ModelLayout> ReadModel(FileSystem& files, const std::string& path);
/// The same for one weight file, which may have any name: an index says what its shards are called.
Result<ModelLayout> ReadWeightFile(FileSystem& files, const std::string& path);

/// A piece of a file.
struct FileRange {
  uint64_t offset = 0;
  uint64_t size = 0;
  bool operator==(const FileRange&) const = default;
};

/// Where a file is sampled for the fingerprint: 16 evenly spread pieces of 4 KiB of its data, or
/// all of them if the data are not larger than that. A function of the sizes alone, so a plan can
/// charge it.
std::vector<FileRange> FingerprintSamples(uint64_t data_begin, uint64_t file_size);
/// Bytes of all samples of a model.
uint64_t FingerprintBytes(const ModelLayout& layout);

/// XXH3-128 over, in index order, each file's name, size, header hash and samples. Opens files
/// through `files`: give it a counting one when the bytes are to be charged.
Result<Hash128> TakeFingerprint(FileSystem& files, const ModelLayout& layout);

}  // namespace mergepipe
