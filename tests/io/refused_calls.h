#pragma once

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <thread>

namespace mergepipe::test {

// Of Linux 6.5.
inline constexpr unsigned kCachestat = 451;

/// Runs `body` in a thread of its own, where Refuse may be called.
template <typename Body>
void InThread(Body&& body) {
  std::thread(std::forward<Body>(body)).join();
}

/// From now on the system call `number` fails with `error` in this thread (on descriptor `fd`
/// alone, if given), as on a kernel or a filesystem that lacks it. False where the system does not
/// allow that.
inline bool Refuse(unsigned number, unsigned error, std::optional<int> fd = {}) {
  constexpr unsigned kNumber = offsetof(seccomp_data, nr);
  constexpr unsigned kFirst = offsetof(seccomp_data, args);
  const auto descriptor = static_cast<unsigned>(fd.value_or(0));
  const auto mask = fd ? ~0U : 0U;
  std::array<sock_filter, 7> program{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFirst),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, descriptor, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace mergepipe::test
