"""Drop privileges, then run one untrusted program: the process that :mod:`sft_atlas.evaluate.sandbox` starts as `python -I -S -X utf8 jail.py`.

Standard library only. Standard input holds one line of JSON (program, limits, key); file descriptor 1 answers with one line: what
could not be enforced, then how the program ended. The key is sent back only after the program's last line has run.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
DENY, NO_SYSCALL, ALLOW = 0x00050000 | 1, 0x00050000 | 38, 0x7FFF0000  # errno EPERM, errno ENOSYS, allow
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
NAMESPACES = 0x10000000 | 0x40000000 | 0x20000000 | 0x08000000  # user, network, process ids, IPC
CLONE_THREAD = 0x00010000
# Signals to others, new programs, sockets, tracing, mounts, ownership and modes of files, kernel facilities that no answer needs.
REFUSED = {
    "x86_64": (
        0xC000003E, 56, 435, [57, 58],
        [41, 42, 49, 59, 62, 90, 91, 92, 93, 94, 101, 109, 112, 129, 132, 155, 161, 165, 166, 169, 188, 189, 190, 197, 198, 199, 200, 234,
         235, 250, 246, 248, 249, 260, 261, 268, 272, 280, 297, 298, 308, 310, 311, 321, 322, 323, 424, 425, 426, 427, 428, 429, 430, 434, 438, 452],
    ),
    "aarch64": (
        0xC00000B7, 220, 435, [],
        [5, 6, 7, 14, 15, 16, 39, 40, 41, 51, 52, 53, 54, 55, 88, 97, 104, 117, 129, 130, 131, 138, 142, 154, 157, 198, 200, 203, 217, 218, 219,
         221, 240, 241, 268, 270, 271, 280, 281, 282, 294, 424, 425, 426, 427, 428, 429, 430, 434, 438, 452],
    ),
}  # fmt: skip


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    answer = os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    missing = [] if LIBC.unshare(NAMESPACES) == 0 else ["namespaces (network, processes)"]
    child = os.fork()  # the first process of the new namespace: when it ends, the kernel ends whatever is left there
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            os.write(answer, json.dumps({"error": f"killed by {signal.Signals(os.WTERMSIG(status)).name}"}).encode() + b"\n")
        os._exit(0)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    missing += limit(order)
    missing += [] if confine_files(order["folder"], order["readable"]) else ["file access (Landlock)"]
    missing += [] if refuse_system_calls() else ["system calls (seccomp)"]
    os.write(answer, (json.dumps(missing) + "\n").encode())
    run(order["program"], order["key"].encode(), answer)


def limit(order: dict) -> list[str]:
    """Set the resource limits (bytes, seconds); return the names of those that the system refuses."""
    limits = {
        "RLIMIT_CPU": order["cpu_seconds"], "RLIMIT_AS": order["memory"], "RLIMIT_FSIZE": order["file_size"],
        "RLIMIT_NPROC": order["processes"], "RLIMIT_NOFILE": 64, "RLIMIT_CORE": 0,
    }  # fmt: skip
    refused = []
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            refused.append(name)
    return refused


def confine_files(folder: str, readable: list[str]) -> bool:
    """Landlock: write only in ``folder``, read and load only from there and ``readable``, no TCP, no signals to the outside."""
    version = LIBC.syscall(444, None, 0, 1)
    if version < 1:
        return False
    everything = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    ruleset = struct.pack("QQQ", everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)[
        : 8 if version < 4 else 16 if version < 6 else 24
    ]
    handle = LIBC.syscall(444, ruleset, len(ruleset), 0)
    if handle < 0:
        return False
    for path, rights in [(folder, everything), *((path, 1 | 4 | 8) for path in readable)]:  # execute (load), read file, read folder
        with contextlib.suppress(FileNotFoundError):
            target = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights = rights if os.path.isdir(path) else rights & 0b10111
            if LIBC.syscall(445, handle, 1, struct.pack("=Qi", rights, target), 0):
                return False
            os.close(target)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return LIBC.syscall(446, handle, 0) == 0


def refuse_system_calls() -> bool:
    """seccomp: the calls of REFUSED fail with EPERM; threads may start, processes may not."""
    machine = os.uname().machine
    if machine not in REFUSED:
        return False
    architecture, clone, clone3, forks, refused = REFUSED[machine]
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06
    code = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, DENY), (load, 0, 0, 0)]
    if machine == "x86_64":  # the x32 numbers of the same calls
        code += [(0x35, 0, 1, 0x40000000), (give, 0, 0, DENY)]
    for number in [*forks, *refused]:
        code += [(equal, 0, 1, number), (give, 0, 0, DENY)]
    code += [(equal, 0, 1, clone3), (give, 0, 0, NO_SYSCALL)]  # the C library falls back to clone, whose flags a filter can read
    code += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_bit, 1, 0, CLONE_THREAD), (give, 0, 0, DENY), (give, 0, 0, ALLOW)]
    rules = b"".join(struct.pack("HBBI", *step) for step in code)
    buffer = ctypes.create_string_buffer(rules)
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return LIBC.prctl(PR_SET_SECCOMP, 2, program, 0, 0) == 0


def run(program: str, key: bytes, answer: int) -> None:
    """Run the program; it passes by reaching its last line, whatever it prints, returns or exits with."""
    write, leave, process = os.write, os._exit, os.getpid()
    inlet, outlet = os.pipe()
    write(outlet, key)  # in a pipe, so that the program cannot read it from the variables of this frame
    os.close(outlet)
    del key
    try:
        exec(compile(program, "answer.py", "exec"), {"__name__": "__main__"})
    except BaseException as error:  # noqa: BLE001 (SystemExit and KeyboardInterrupt of the program are failures like any other)
        write(answer, json.dumps({"error": type(error).__name__[:80]}).encode() + b"\n")
        leave(0)
    if os.getpid() == process:
        write(answer, json.dumps({"key": os.read(inlet, 64).decode()}).encode() + b"\n")
    leave(0)


if __name__ == "__main__":
    main()
