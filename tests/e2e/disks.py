"""Small disks of a test's own: ext4 on a loop device with its image in memory, that can fill up, die, or lose power."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

SHUT_DOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
FLUSH_NOTHING = 2  # not even the journal
NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
MIB = 1 << 20


def call(*command) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr.strip()}")


@contextmanager
def private_mounts():
    """What this thread and its children mount, they alone see, and it goes with them however they end."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    before, here = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), Path.cwd()
    try:
        check(libc.unshare(NEW_MOUNTS))
        try:
            call("mount", "--make-rprivate", "/")
            yield
        finally:
            check(libc.setns(before, NEW_MOUNTS))
            os.chdir(here)
    finally:
        os.close(before)


def unmount(path: Path, seconds: float = 20) -> None:
    """A killed process may hold it for a moment longer than whoever started it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call("umount", path)
        except OSError as error:
            if "busy" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Disk:
    """Mounted at `path`. `backing` is how much of it can really be stored, in MiB: a disk that promises more than it has."""

    def __init__(self, root: Path, megabytes: int = 96, backing: int | None = None):
        self.path, self.memory = root / "disk", root / "memory"
        self.image = self.memory / "image"
        for path in (self.path, self.memory):
            path.mkdir(parents=True)
        call("mount", "-t", "tmpfs", "-o", f"size={backing or megabytes + 8}m", "tmpfs", self.memory)
        self.image.touch()
        os.truncate(self.image, megabytes * MIB)
        call("mkfs.ext4", "-q", "-F", self.image)
        self.mount()

    def mount(self) -> None:
        # Without the kernel's help for programs that do not sync, and without its regular commits.
        call("mount", "-o", "loop,noauto_da_alloc,commit=600", self.image, self.path)

    def repair(self) -> None:
        """Unmounts it, has it checked and repaired as at a start of the machine, and mounts it again."""
        unmount(self.path)
        done = subprocess.run(["e2fsck", "-f", "-y", self.image], capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1, 2), f"e2fsck: {done.stdout}{done.stderr}"  # 1 and 2: it repaired something
        self.mount()

    def sync(self) -> None:
        call("sync", "-f", self.path)

    def die(self) -> None:
        """From now on every call fails, and what was not synced is lost."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(directory, SHUT_DOWN, struct.pack("I", FLUSH_NOTHING))
        finally:
            os.close(directory)

    def lose_power(self) -> None:
        self.die()
        self.repair()

    def enlarge(self, megabytes: int) -> None:
        """Gives it what it promised."""
        call("mount", "-o", f"remount,size={megabytes}m", self.memory)

    def remove(self) -> None:
        unmount(self.path)
        unmount(self.memory)
        for path in (self.path, self.memory):
            path.rmdir()


@contextmanager
def disk(root: Path, **how):
    made = Disk(root, **how)
    try:
        yield made
    finally:
        made.remove()


def why_not(root: Path) -> str | None:
    """Why such disks cannot be made here, or None."""
    for tool in ("mkfs.ext4", "e2fsck", "mount", "umount"):
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            return f"there is no '{tool}' (Debian: e2fsprogs, mount)"
    try:
        with private_mounts(), disk(root, megabytes=16) as made:
            (made.path / "file").write_bytes(b"synced")
            made.sync()
            (made.path / "file").write_bytes(b"not synced")
            made.lose_power()
            kept = (made.path / "file").read_bytes()
            return None if kept == b"synced" else f"a disk that loses its power keeps {kept!r}"
    except OSError as error:
        return f"no ext4 on a loop device here: {error}"
