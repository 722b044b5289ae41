#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "mergepipe/base/error.h"

namespace mergepipe {

/// Fills all of `out` by pread; the end of the file before that is kBadInput.
Status ReadExactly(int fd, const std::string& path, uint64_t offset, std::span<std::byte> out);
/// Writes all of `bytes` by pwrite.
Status WriteExactly(int fd, const std::string& path, uint64_t offset,
                    std::span<const std::byte> bytes);
/// Takes from the start of the range what is in the page cache, without waiting for the disk, and
/// returns how much that is. If it is not nothing, the kernel may have begun to read the rest
/// ahead.
size_t ReadCached(int fd, uint64_t offset, std::span<std::byte> out);
/// copy_file_range until `length` bytes are copied, or it does not go on; returns how many are.
/// Fails only where no other way of copying would do better.
Result<uint64_t> CopyByKernel(int source, uint64_t from, int target, uint64_t to, uint64_t length,
                              const std::string& target_path);

/// Lets the target share whole blocks with the source (a reflink); false where that cannot be done.
bool CloneByKernel(int source, uint64_t from, int target, uint64_t to, uint64_t length);

}  // namespace mergepipe
