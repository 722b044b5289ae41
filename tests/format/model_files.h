#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "mergepipe/base/error.h"
#include "mergepipe/format/safetensors.h"

/// \file
/// Real files for the tests of this layer.
namespace mergepipe {

/// A directory of its own, removed at the end.
class TempDirectory {
 public:
  TempDirectory() {
    std::string name =
        (std::filesystem::temp_directory_path() / "mergepipe_format_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string Path(std::string_view name) const { return path_ + "/" + std::string(name); }

  /// Makes (or overwrites) a file, and the directories that lead to it.
  std::string Write(std::string_view name, std::string_view bytes) const {
    const std::string path = Path(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

 private:
  std::string path_;
};

/// The 8 bytes of `length`, and `json`.
inline std::string WithLength(std::string_view json) {
  std::string bytes;
  for (unsigned i = 0; i < 8; ++i) bytes += static_cast<char>((json.size() >> (8 * i)) & 0xff);
  return bytes.append(json);
}

/// A whole file: one F32 tensor [n] for each name, of different data each.
inline std::string SafetensorsBytes(const std::vector<std::string>& names, uint64_t elements = 2) {
  SafetensorsHeader header{.metadata = {{"format", "pt"}}, .entries = {}};
  std::string data;
  for (const std::string& name : names) {
    const uint64_t begin = data.size();
    for (uint64_t i = 0; i < elements * 4; ++i)
      data += static_cast<char>((i * 7 + names.size()) & 0x3f);
    header.entries.push_back({name, DType::kF32, {elements}, begin, data.size()});
  }
  return SerializeSafetensorsHeader(header) + data;
}

/// All problems of a Result that must be an error of kind kBadInput.
template <typename T>
std::string Problems(const Result<T>& result) {
  if (result.has_value()) return "no error";
  EXPECT_EQ(result.error().kind(), ErrorKind::kBadInput);
  return result.error().ToString();
}

/// Whether `text` holds `part`; shows both if not.
inline ::testing::AssertionResult Says(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << part << "' is not in:\n" << text;
}

}  // namespace mergepipe
