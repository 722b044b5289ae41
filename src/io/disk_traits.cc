#include "io/disk_traits.h"

#include <fmt/format.h>
#include <sys/statfs.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "io/descriptor.h"

namespace mergepipe {
namespace {

struct KnownFilesystem {
  uint32_t magic;
  const char* name;
  bool network = false;
  bool direct = false;
  bool shares_blocks = false;
};

// statfs(2), linux/magic.h, and the sources of those that are not in the kernel.
constexpr std::array kKnown{
    KnownFilesystem{.magic = 0xEF53, .name = "ext4", .direct = true},
    KnownFilesystem{.magic = 0x58465342, .name = "xfs", .direct = true, .shares_blocks = true},
    KnownFilesystem{.magic = 0x9123683E, .name = "btrfs", .shares_blocks = true},
    KnownFilesystem{.magic = 0xCA451A4E, .name = "bcachefs", .shares_blocks = true},
    KnownFilesystem{.magic = 0xF2F52010, .name = "f2fs"},
    KnownFilesystem{.magic = 0x2FC12FC1, .name = "zfs"},
    KnownFilesystem{.magic = 0x01021994, .name = "tmpfs"},
    KnownFilesystem{.magic = 0x858458F6, .name = "ramfs"},
    KnownFilesystem{.magic = 0x794C7630, .name = "overlay"},
    KnownFilesystem{.magic = 0x73717368, .name = "squashfs"},
    KnownFilesystem{.magic = 0x9FA0, .name = "proc"},
    KnownFilesystem{.magic = 0x62656572, .name = "sysfs"},
    KnownFilesystem{.magic = 0x4D44, .name = "vfat"},
    KnownFilesystem{.magic = 0x2011BAB0, .name = "exfat"},
    KnownFilesystem{.magic = 0x6969, .name = "nfs", .network = true},
    KnownFilesystem{.magic = 0x0BD00BD0, .name = "lustre", .network = true},
    KnownFilesystem{.magic = 0x47504653, .name = "gpfs", .network = true},
    KnownFilesystem{.magic = 0x19830326, .name = "beegfs", .network = true},
    KnownFilesystem{.magic = 0x00C36400, .name = "ceph", .network = true},
    KnownFilesystem{.magic = 0x65735546, .name = "fuse", .network = true},
    KnownFilesystem{.magic = 0x517B, .name = "smb", .network = true},
    KnownFilesystem{.magic = 0xFF534D42, .name = "cifs", .network = true},
    KnownFilesystem{.magic = 0xFE534D42, .name = "smb2", .network = true},
    KnownFilesystem{.magic = 0x01021997, .name = "9p", .network = true},
    KnownFilesystem{.magic = 0x5346414F, .name = "afs", .network = true},
    KnownFilesystem{.magic = 0x6B414653, .name = "afs", .network = true},
    KnownFilesystem{.magic = 0x20030528, .name = "orangefs", .network = true},
    KnownFilesystem{.magic = 0xAAD7AAEA, .name = "panfs", .network = true},
    KnownFilesystem{.magic = 0x01161970, .name = "gfs2", .network = true},
    KnownFilesystem{.magic = 0x7461636F, .name = "ocfs2", .network = true},
};

DiskTraits TraitsOf(const struct statfs& disk) {
  // f_type is signed on some machines, and wider than the number in it.
  const auto magic = static_cast<uint32_t>(disk.f_type);
  const auto* known = std::find_if(kKnown.begin(), kKnown.end(),
                                   [&](const KnownFilesystem& one) { return one.magic == magic; });
  if (known == kKnown.end()) return DiskTraits{.filesystem = fmt::format("0x{:x}", magic)};
  return DiskTraits{known->name, known->network, known->direct,
                    known->network || known->shares_blocks};
}

// In a directory a nameless file, which vanishes by itself. Where this user may not write, the
// table's word stands: a file that refuses is read through the cache.
bool OpensForDirect(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return false;
  const bool directory = S_ISDIR(info.st_mode);
  if (!directory && !S_ISREG(info.st_mode)) return false;
  const Descriptor fd(OpenRetrying(
      path, O_DIRECT | (directory ? O_TMPFILE | O_RDWR : O_RDONLY | O_NONBLOCK), 0600));
  return fd.get() >= 0 || errno == EACCES || errno == EPERM || errno == EROFS;
}

}  // namespace

DiskTraits DiskTraitsOf(int fd) {
  struct statfs disk {};
  return ::fstatfs(fd, &disk) == 0 ? TraitsOf(disk) : DiskTraits{.filesystem = "unknown"};
}

Result<DiskTraits> DiskTraitsOf(const std::string& path) {
  struct statfs disk {};
  if (::statfs(path.c_str(), &disk) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return tl::unexpected(NotThere(path));
    return tl::unexpected(SystemError(errno, path, "ask for the kind of filesystem"));
  }
  DiskTraits traits = TraitsOf(disk);
  traits.direct = traits.direct && OpensForDirect(path);
  return traits;
}

}  // namespace mergepipe
