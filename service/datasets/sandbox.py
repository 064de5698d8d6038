"""Disposable processes that read the files of clients, and their limits.

They are forked from a warm server, which has loaded pyarrow and never used it. Only JSON and our
own constants pass between the processes. The effects of a malicious file end with its process.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from service.datasets.rejected import Rejected

CONTEXT = multiprocessing.get_context("forkserver")
# These functions are given by name, so that this process need not load their imports.
PREVIEW = "service.datasets.parse:preview"  # reads the first rows of a dataset in another way
READER = "service.datasets.parse:parse_rows"  # reads the rows of a prediction
PACKER = "service.exports.packing:pack"  # exports and imports models
#: the modules of these functions
WARM = ["service.datasets.parse", "service.exports.packing"]
TABLE = "table.parquet"  # the parser's output in its folder
TICK_S = 0.2  # seconds between two calls of a pulse
END_S = 5.0  # seconds within which a process must end after its answer
MAX_ANSWER = 256 * 1024 * 1024  # bytes; a profile is far smaller
#: limit of addresses / limit of memory; allocators keep the addresses of freed memory
ADDRESSES = 1.5
WORKBOOK_SHARE = 0.35  # of the memory limit, for the content of a workbook
FILE_BYTES = 64 * 1024**3  # the largest file that the process may write
CPU_FACTOR = 2  # seconds of CPU time for each second of wall time
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
LARGE = 128 * 1024  # bytes; memory of such an allocation returns to the system when freed
KEPT = 8 * 1024 * 1024  # the same in a process whose buffers are few
#: this process, once it is confined
_confined: list[int] = []
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _LANDLOCK_BENEATH = 444, 445, 446, 1
#: Landlock's rights to write to files, and to remove and make files, folders, links, pipes, sockets
#: and devices
_WRITING = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


@dataclass(frozen=True)
class Task:
    """A file to parse, with its options, as values of JSON."""

    #: the file, and a folder for this process only
    path: str
    folder: str
    media_type: str
    #: delimiter, header, missing_values, types
    options: dict[str, Any]
    max_columns: int
    #: the function that does the task, as `module:function`
    parser: str = ""
    #: bytes that an archive may inflate to, and how many times its size
    max_bytes: int = 5 * 1024**3
    max_ratio: int = 200
    #: bytes of the content of a workbook, which its reader holds as a whole
    workbook_bytes: int = 350 * 1024**2


@dataclass(frozen=True)
class Limits:
    """The resources that the process may use."""

    memory_bytes: int
    timeout_s: float
    #: size of its answer as JSON
    answer_bytes: int = MAX_ANSWER
    #: the setting that allows more time, if any
    timeout_setting: str | None = "DESCENT_PARSE_TIMEOUT_S"


def warm() -> None:
    """Start the server that forks the processes, so that the first request need not wait for it."""
    CONTEXT.set_forkserver_preload(WARM)
    with contextlib.suppress(RuntimeError, OSError):
        _start(CONTEXT, _nothing, ()).join(END_S)


def run(task: Task, limits: Limits) -> dict[str, Any]:
    """Do a task in a fresh process; raise Rejected, also if the process dies."""
    CONTEXT.set_forkserver_preload(WARM)
    return _done(task, limits, CONTEXT, _nothing)


def run_in_attempt(task: Task, limits: Limits, pulse: Callable[[], None]) -> dict[str, Any]:
    """Do the same in a fork of this process, the process of an attempt.

    Such a process may fork, because it has no threads of its own and uses no storage; a server for
    one task would have to import everything again. Calls `pulse` while it waits; an exception of it
    ends the task.
    """
    context = CONTEXT if sys.platform == "darwin" else multiprocessing.get_context("fork")
    return _done(task, limits, context, pulse)


def _done(
    task: Task, limits: Limits, context: BaseContext, pulse: Callable[[], None]
) -> dict[str, Any]:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver:
        with sender:
            arguments = (sender, json.dumps(asdict(task)), limits)
            process = _start(context, _child, arguments)
        try:
            answer = _answer(receiver, limits, pulse)
            process.join(END_S)
        finally:
            if process.is_alive():
                process.kill()
            process.join()
        if answer is None:
            raise died(process.exitcode, limits)
    if "rejected" in answer:
        refused = answer["rejected"]
        raise Rejected(
            refused["code"], refused["detail"], refused["errors"], status=refused["status"]
        )
    result: dict[str, Any] = answer["result"]
    return result


def _start(
    context: BaseContext, target: Callable[..., None], arguments: tuple[Any, ...]
) -> BaseProcess:
    process: BaseProcess = context.Process(target=target, args=arguments, daemon=True)  # type: ignore[attr-defined]  # each context has it
    process.start()
    return process


def _answer(
    receiver: Connection, limits: Limits, pulse: Callable[[], None]
) -> dict[str, Any] | None:
    """Return the answer of the process, or None if it died without one."""
    deadline = time.monotonic() + limits.timeout_s
    while not receiver.poll(min(TICK_S, max(0.0, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            raise late(limits)
        pulse()
    try:
        answer: dict[str, Any] = json.loads(receiver.recv_bytes(limits.answer_bytes))
    except (EOFError, OSError):
        return None
    return answer


def late(limits: Limits) -> Rejected:
    raised = f", or raise {limits.timeout_setting}" if limits.timeout_setting else ""
    return Rejected(
        "parse_timeout",
        f"The file was not parsed within {limits.timeout_s:g} s: send a smaller one{raised}.",
    )


def _out_of_memory(limits: Limits) -> Rejected:
    return Rejected(
        "parse_out_of_memory",
        f"Parsing the file takes more than {limits.memory_bytes} bytes of memory: send fewer"
        " columns, shorter rows or smaller record batches, or raise DESCENT_PARSE_MEMORY_BYTES.",
    )


def died(code: int | None, limits: Limits) -> Rejected:
    if code == -signal.SIGXCPU:
        return late(limits)
    how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit status {code}"
    return Rejected(
        "dataset_unparseable",
        f"The process that parsed the file ended with {how} (its limits: {limits.memory_bytes}"
        f" bytes of memory, {limits.timeout_s:g} s): the file is damaged or malicious.",
    )


# ---- inside the process -----------------------------------------------------------------------


def _nothing() -> None:
    """Do nothing, as a first process, which warms the server up, and as a pulse."""


def _child(sender: Connection, text: str, limits: Limits) -> None:
    confine(limits)
    gc.freeze()  # garbage collection would copy the memory of all imports
    task = Task(**json.loads(text))
    keep_to(Path(task.folder))
    module, _, function = task.parser.partition(":")
    answer = outcome(task, limits, getattr(importlib.import_module(module), function))
    content = json.dumps(answer).encode()
    if len(content) > limits.answer_bytes:
        content = json.dumps({"rejected": _too_long(limits).to_json()}).encode()
    sender.send_bytes(content)
    sender.close()
    # Nothing here needs cleaning up, which could crash if a file has damaged the heap.
    os._exit(0)


def outcome(task: Task, limits: Limits, parse: Callable[[Task], dict[str, Any]]) -> dict[str, Any]:
    """Return the `result` of a task, or the `rejected` file's error."""
    try:
        return {"result": parse(task)}
    except Rejected as refused:
        return {"rejected": refused.to_json()}
    except Exception as error:  # noqa: BLE001  any error that a file provokes rejects it
        return {"rejected": _provoked(error, limits).to_json()}


def _provoked(error: Exception, limits: Limits) -> Rejected:
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind in {"ArrowMemoryError", "OutOfMemoryException"}:
        return _out_of_memory(limits)
    if "allocate" in str(error) or "bad_alloc" in str(error):
        return _out_of_memory(limits)
    if isinstance(error, OSError) and error.errno is not None:
        return Rejected(
            "storage_full",
            "There is no room for the parsed table: free some space and try again.",
            status=507,
        )
    return Rejected(
        "dataset_unparseable",
        f"The file cannot be read as a table ({kind}): it is damaged, or its content type is"
        " wrong.",
    )


def _too_long(limits: Limits) -> Rejected:
    return Rejected(
        "too_large",
        f"The content of the file takes more than {limits.answer_bytes} bytes: send fewer rows, or"
        " shorter texts.",
        status=413,
    )


def confine(limits: Limits) -> None:
    """Limit this process: no environment, no network, bounded memory, time and files."""
    # Given by name, as the parser is, so that the parent process need not load it.
    pa: Any = importlib.import_module("pyarrow")
    _confined.append(os.getpid())
    os.environ.clear()  # it may name keys and databases
    pa.set_memory_pool(pa.system_memory_pool())  # the others reserve gigabytes of addresses
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, LARGE)
        _cut_network(libc)
    cpu = int(limits.timeout_s * CPU_FACTOR) + 1
    _limit(resource.RLIMIT_CPU, cpu)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, _address_space() + int(ADDRESSES * limits.memory_bytes))


def keep_buffers() -> None:
    """Let a confined process use the memory of freed buffers again, which is faster.

    The buffers must be few: each that is kept leaves less memory to all others.
    """
    if _confined:
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, KEPT)
            libc.mallopt(_M_TRIM_THRESHOLD, KEPT)


def keep_to(folder: Path) -> bool:
    """Let this process change files only in `folder`; return False if Landlock is missing."""
    is_kept = False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        handled = struct.pack("=Q", _WRITING)
        rules = libc.syscall(_LANDLOCK_CREATE, handled, len(handled), 0)
        if rules < 0:
            return False
        inside = os.open(folder, os.O_PATH)
        beneath = struct.pack("=Qi", _WRITING, inside)
        if libc.syscall(_LANDLOCK_ADD, rules, _LANDLOCK_BENEATH, beneath, 0) == 0:
            is_kept = libc.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0
        os.close(inside)
        os.close(rules)
    return is_kept


def _cut_network(libc: ctypes.CDLL) -> None:
    """Leave the network, if the system allows it: as root, or in a new user namespace."""
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _limit(what: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):
        _soft, hard = resource.getrlimit(what)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (most, most))


def _address_space() -> int:
    """Return the bytes of addresses that the loaded libraries take; most are never used."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 2 * 1024**3
    return int(statm.read_text().split()[0]) * resource.getpagesize()
