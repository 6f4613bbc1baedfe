"""Run a command as on a kernel that lacks protections of the sandbox: `python lesser_kernel.py landlock,seccomp COMMAND...`.

The calls fail as they do there: seccomp filters answer for the kernel.
"""

import ctypes
import os
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
EPERM, EINVAL, ENOSYS = 1, 22, 38
# feature -> (errno, system calls on x86-64, on arm64). "namespaces" is how Docker's default profile answers.
CALLS = {
    "landlock": (ENOSYS, (444, 445, 446), (444, 445, 446)),
    "namespaces": (EPERM, (272,), (97,)),
    "tmpfs": (EPERM, (165,), (40,)),
    "seccomp": (EINVAL, (317,), (277,)),
}
PRCTL = {"x86_64": 157, "aarch64": 167}
SECCOMP = 22  # PR_SET_SECCOMP


def lack(features: list[str], machine: str) -> None:
    """Have the calls of some features fail in this process and its children."""
    load, equal, give, allow = 0x20, 0x15, 0x06, 0x7FFF0000
    code = [(load, 0, 0, 0)]
    for feature in features:
        error, *numbers = CALLS[feature]
        for number in numbers[machine == "aarch64"]:
            code += [(equal, 0, 1, number), (give, 0, 0, 0x00050000 | error)]
    if "seccomp" in features:
        code += [(equal, 0, 3, PRCTL[machine]), (load, 0, 0, 16), (equal, 0, 1, SECCOMP), (give, 0, 0, 0x00050000 | EINVAL)]
    code.append((give, 0, 0, allow))
    buffer = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
    LIBC.prctl(38, 1, 0, 0, 0)
    if LIBC.prctl(SECCOMP, 2, struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer)), 0, 0):
        sys.exit("this kernel has no seccomp filters")


if __name__ == "__main__":
    lack(sys.argv[1].split(","), os.uname().machine)
    os.execvp(sys.argv[2], sys.argv[2:])
