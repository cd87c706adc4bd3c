"""Linux system calls that Python's os module lacks: prctl, namespaces, mounts, capabilities, Landlock.

Numbers are those of the generic table, equal on x86-64 and arm64 for everything newer than Linux 5.2.
Every function raises `OSError` if the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 38, 36
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18

_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 442, 444, 445, 446
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_CAPABILITIES = 64
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, value: int = 0) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    )


def set_read_only(path: str, read_only: bool, recursive: bool) -> None:
    """Make the mount at `path` read-only or writable (mount_setattr, Linux 5.12)."""
    set_, clear = (_MOUNT_ATTR_RDONLY, 0) if read_only else (0, _MOUNT_ATTR_RDONLY)
    attributes = struct.pack("=QQQQ", set_, clear, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    _check(
        _libc.syscall(
            _MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, attributes, ctypes.c_size_t(len(attributes))
        )
    )


def drop_capabilities() -> None:
    """No capability now, and none after an exec."""
    for capability in range(_CAPABILITIES):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # past the last one this kernel knows, or not held
            continue
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _check(_libc.capset(header, struct.pack("=6I", *[0] * 6)))


# Landlock access rights, linux/landlock.h
READ = (1 << 2) | (1 << 3)  # files, folders
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
WRITE = WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # write, remove and make all kinds
_REFER = 1 << 13
_NET = 0b11  # TCP: bind, connect (ABI 4)
_SCOPES = 0b11  # abstract sockets, signals (ABI 6)


def landlock_version() -> int:
    """The kernel's Landlock ABI. Raises `OSError` without Landlock."""
    return _check(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


class Landlock:
    """A set of rules: what is not allowed below some path is forbidden, for this process and its children."""

    def __init__(self) -> None:
        self.version = landlock_version()
        self.handled = READ | WRITE | (_REFER if self.version >= 2 else 0)
        self.handled |= TRUNCATE if self.version >= 3 else 0
        net = _NET if self.version >= 4 else 0
        scopes = _SCOPES if self.version >= 6 else 0
        fields = struct.pack("=QQQ", self.handled, net, scopes)
        size = 24 if self.version >= 6 else 16 if self.version >= 4 else 8
        self.fd = _check(_libc.syscall(_LANDLOCK_CREATE, fields, ctypes.c_size_t(size), 0))

    def allow(self, path: str, rights: int) -> None:
        """Allow `rights` at and below `path`. A path that does not exist needs no rule."""
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if not os.path.isdir(path):
                rights &= (1 << 2) | WRITE_FILE | TRUNCATE
            rule = struct.pack("=Qi", rights & self.handled, place)
            _check(_libc.syscall(_LANDLOCK_ADD, self.fd, 1, rule, 0))
        finally:
            os.close(place)

    def enforce(self) -> None:
        """From now on. Needs no-new-privileges."""
        _check(_libc.syscall(_LANDLOCK_RESTRICT, self.fd, 0))
        os.close(self.fd)
