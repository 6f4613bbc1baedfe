"""Inside the sandbox: give up privileges, then run one program in one process and its tests in another.

:mod:`sft_atlas.evaluate.sandbox` starts :func:`main` in an interpreter without site-packages. Standard input holds two messages: the
program with its limits, and its tests with a token. The first process encloses itself, reads the program and forks before it reads the
tests: the child runs the program and answers calls (:mod:`sft_atlas.evaluate.calls`), the parent runs the tests and alone can write to
standard output. So the program's process never holds the tests, the expected values, the token or a descriptor for the verdict.
Standard output gets two lines of JSON: what could not be enforced, then the verdict. Standard library only.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import types

from sft_atlas.evaluate.calls import PASSED_BY_TESTS, Peer, receive

LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None, use_errno=True)
DENY, NO_SYSCALL, ALLOW = 0x00050000 | 1, 0x00050000 | 38, 0x7FFF0000  # errno EPERM, errno ENOSYS, allow
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 16, 22, 38
NAMESPACES = 0x10000000 | 0x40000000 | 0x20000000 | 0x08000000 | 0x00020000  # user, network, process ids, IPC, mounts
CLONE_THREAD = 0x00010000
NOSUID_NODEV_NOEXEC, READ_ONLY, PRIVATE = 2 | 4 | 8, 1, 0x4000 | 0x40000  # MS_*; the last: MS_REC | MS_PRIVATE
NOBODY = 65534  # the user inside the namespace

NO_NAMESPACES = "namespaces (user, network, processes, mounts)"
NO_QUOTA = "a file system of its own (tmpfs)"
NO_LANDLOCK = "file access (Landlock)"
NO_SECCOMP = "system calls (seccomp)"

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# System calls that fail with EPERM, by their numbers on x86-64 and on arm64 (None: not there).
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # signals to others, tracing, other processes' memory and descriptors
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117), "kcmp": (312, 272),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "perf_event_open": (298, 241), "setpgid": (109, 154), "setsid": (112, 157),
    "setpriority": (141, 140), "ioprio_set": (251, 30),
    # processes and programs; clone and clone3 are below
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    # sockets, and memory that outlives a process
    "socket": (41, 198), "bind": (49, 200), "connect": (42, 203), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180),
    # modes, owners, times and attributes of files, which Landlock does not guard
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    # namespaces, mounts, and facilities of the kernel that no answer needs
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "reboot": (169, 142), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
}  # fmt: skip
# System calls whose first argument must be one of these. 0 as a process number is the caller.
LIMITED: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "prlimit64": (302, 261, (0,)), "sched_setaffinity": (203, 122, (0,)), "sched_setscheduler": (144, 119, (0,)),
    "sched_setparam": (142, 118, (0,)), "sched_setattr": (314, 274, (0,)), "prctl": (157, 167, (PR_SET_NAME, PR_GET_NAME)),
}  # fmt: skip
CLONE, CLONE3 = (56, 220), (435, 435)


def main() -> None:
    order = json.loads(receive(0))
    verdict = os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 1)
    control(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != order["parent"]:  # it ended before the line above
        os._exit(1)
    missing = separate(order) + limit(order)
    if not confine_files(order["folder"], order["readable"]):
        missing.append(NO_LANDLOCK)
    if missing and order["strict"]:
        say(verdict, missing)
        os._exit(0)
    if "typing" in order["program"]:
        __import__("typing")  # once for both processes; no module with a state that the tests may rely on, such as random, is shared
    (program_in, tests_out), (tests_in, program_out) = os.pipe(), os.pipe()
    program = os.fork()  # in its namespace the first process: when it ends, the kernel ends whatever is left there
    if program == 0:
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        for other in {*range(3, 64)} - {program_in, program_out}:
            with contextlib.suppress(OSError):
                os.close(other)
        run_program(order, Peer(program_in, program_out))
    os.close(program_in)
    os.close(program_out)
    judge = json.loads(receive(0))
    for stream in (0, 2):
        os.dup2(silence, stream)
    control(PR_SET_DUMPABLE, 0, 0, 0, 0)
    drop_capabilities()
    if not refuse_system_calls(allowed=("kill",)):  # of the program, in the end
        missing.append(NO_SECCOMP)
    say(verdict, missing)
    if NO_SECCOMP in missing and order["strict"]:
        os._exit(0)
    peer = Peer(tests_in, tests_out, PASSED_BY_TESTS)
    result = run_tests(judge["tests"], judge["names"], peer)
    if peer.ended:
        result = {"error": ending(program)}
    elif peer.unsupported:
        result = {"error": "unsupported", "unsupported": peer.unsupported}
    say(verdict, {"token": judge["token"], **result})
    if not peer.ended:
        os.kill(program, signal.SIGKILL)
        os.waitpid(program, 0)
    os._exit(0)


def say(verdict: int, content: object) -> None:
    """Write one line to the verdict's descriptor."""
    os.write(verdict, json.dumps(content).encode() + b"\n")


def run_program(order: dict, peer: Peer) -> None:
    """The program's process: run it to its last line, then answer what the tests ask of its names. Does not return."""
    leave = os._exit
    control(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    limit_processes(order)
    drop_capabilities()
    nested = confine_files(None, [])  # of its own, so that it may not trace the tests
    if not (refuse_system_calls() and nested) and order["strict"]:
        leave(1)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    peer.objects.append(module.__dict__)
    try:
        exec(compile(order["program"], "answer.py", "exec"), module.__dict__)
    except BaseException as error:  # noqa: BLE001 (SystemExit and KeyboardInterrupt of the program are failures like any other)
        peer.send({"raised": peer.described(error)})
        leave(0)
    try:
        peer.send({"value": None})
        peer.serve()
    finally:
        leave(0)


def run_tests(tests: str, names: list[str], peer: Peer) -> dict[str, object]:
    """Run the tests, with ``names`` from the program; ``{"passed": True}`` if they reach their last line, else the error's name."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    try:
        peer.result()  # the program has reached its last line
        for name in names:
            with contextlib.suppress(KeyError):  # a name that the program does not define is a NameError of the tests
                namespace[name] = peer.ask("name", 0, name)
        exec(compile(tests, "tests.py", "exec"), namespace)
    except BaseException as error:  # noqa: BLE001 (whatever ends the tests is a failure)
        return {"error": reason(error)}
    return {"passed": True}


def reason(error: BaseException) -> str:
    """The name of an exception's class, in the program where it is the program's."""
    return getattr(error, "reported", type(error).__name__)


def ending(program: int) -> str:
    """How the program's process ended."""
    _, status = os.waitpid(program, 0)
    return f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "ended early"


# ---------------------------------------------------------------- protections


def control(option: int, *values: object) -> int:
    """The system call prctl; -1 where there is none."""
    return LIBC.prctl(option, *values) if LINUX else -1


def separate(order: dict) -> list[str]:
    """Namespaces, with a tmpfs of ``order["disk"]`` bytes on ``order["folder"]`` and nothing in ``order["hidden"]``; what is not to be had."""
    user, group = os.geteuid(), os.getegid()
    if not LINUX or LIBC.unshare(NAMESPACES):
        return [NO_NAMESPACES, NO_QUOTA]
    try:
        for file, content in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
            with open(f"/proc/self/{file}", "w") as handle:
                handle.write(content)
    except OSError:
        return [NO_NAMESPACES, NO_QUOTA]
    if LIBC.mount(b"none", b"/", None, PRIVATE, None):
        return [NO_QUOTA]
    for folder in order["hidden"]:
        if LIBC.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", NOSUID_NODEV_NOEXEC | READ_ONLY, b"size=4k,nr_inodes=2"):
            return [NO_QUOTA]
    size = f"size={order['disk']},nr_inodes={order['files']},mode=700".encode()
    if LIBC.mount(b"tmpfs", os.fsencode(order["folder"]), b"tmpfs", NOSUID_NODEV_NOEXEC, size):
        return [NO_QUOTA]
    os.chdir(order["folder"])
    return []


def limit(order: dict) -> list[str]:
    """Set the resource limits of a process (bytes, seconds); return the names of those that the system refuses."""
    limits = {
        "RLIMIT_CPU": order["cpu_seconds"], "RLIMIT_AS": order["memory"], "RLIMIT_FSIZE": order["file_size"], "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }  # fmt: skip
    refused = []
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            refused.append(name)
    return refused


def limit_processes(order: dict) -> None:
    """Limit the threads of the user, after the last fork. It binds no root, and seccomp refuses processes in any case."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NPROC, (order["processes"], order["processes"]))


def drop_capabilities() -> None:
    """Give up the capabilities that come with a user namespace."""
    if LINUX:
        LIBC.capset(struct.pack("Ii", 0x20080522, 0), bytes(24))


def confine_files(folder: str | None, readable: list[str]) -> bool:
    """Landlock: write only in ``folder``, read only there and in ``readable``, no TCP, no signals to the outside. Whether it is enforced.

    Without a folder, a domain that refuses only to start programs.
    """
    version = LIBC.syscall(444, None, 0, 1) if LINUX else 0
    if version < 1:
        return False
    everything = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    ruleset = struct.pack("QQQ", everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    ruleset = ruleset[: 8 if version < 4 else 16 if version < 6 else 24] if folder else struct.pack("Q", 1)
    handle = LIBC.syscall(444, ruleset, len(ruleset), 0)
    if handle < 0:
        return False
    for path, rights in [(folder, everything), *((path, 4 | 8) for path in readable)] if folder else []:  # 4: read file, 8: list folder
        with contextlib.suppress(FileNotFoundError):
            target = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights = rights if os.path.isdir(path) else rights & 0b10111
            if LIBC.syscall(445, handle, 1, struct.pack("=Qi", rights, target), 0):
                return False
            os.close(target)
    control(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    enforced = LIBC.syscall(446, handle, 0) == 0
    os.close(handle)
    return enforced


def refuse_system_calls(allowed: tuple[str, ...] = ()) -> bool:
    """seccomp: the calls of REFUSED but ``allowed`` fail with EPERM, those of LIMITED for other processes; threads may start, processes
    may not. Whether it is enforced."""
    machine = os.uname().machine
    if not LINUX or machine not in ARCHITECTURES or sys.maxsize < 2**32:
        return False
    column = list(ARCHITECTURES).index(machine)
    load, equal, any_bit, give, number, argument = 0x20, 0x15, 0x45, 0x06, 0, 16
    code = [(load, 0, 0, 4), (equal, 1, 0, ARCHITECTURES[machine]), (give, 0, 0, DENY), (load, 0, 0, number)]
    if machine == "x86_64":  # the x32 numbers of the same calls
        code += [(0x35, 0, 1, 0x40000000), (give, 0, 0, DENY)]
    for name, numbers in REFUSED.items():
        if numbers[column] is not None and name not in allowed:
            code += [(equal, 0, 1, numbers[column]), (give, 0, 0, DENY)]
    for *numbers, permitted in LIMITED.values():
        values = [step for value in permitted for step in ((equal, 0, 1, value), (give, 0, 0, ALLOW))]
        code += [(equal, 0, len(values) + 2, numbers[column]), (load, 0, 0, argument), *values, (give, 0, 0, DENY)]
    code += [(equal, 0, 1, CLONE3[column]), (give, 0, 0, NO_SYSCALL)]  # the C library falls back to clone, whose flags a filter can read
    code += [(equal, 0, 3, CLONE[column]), (load, 0, 0, argument), (any_bit, 1, 0, CLONE_THREAD), (give, 0, 0, DENY), (give, 0, 0, ALLOW)]
    rules = b"".join(struct.pack("HBBI", *step) for step in code)
    buffer = ctypes.create_string_buffer(rules)
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    control(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return control(PR_SET_SECCOMP, 2, program, 0, 0) == 0
