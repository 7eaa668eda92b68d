"""Jobs, limits and results, and the form that they have on the wire: one JSON object a line."""

import base64
import json
import re
from dataclasses import dataclass, field, fields
from typing import Any, Dict, Mapping, Optional, Sequence, Union

#: Version of the protocol that this client speaks.
PROTOCOL_VERSION = 1
#: No line on the wire is longer, in bytes.
MAX_LINE_BYTES = 16 << 20

#: Where a test may run; see :func:`evald.run`.
TRUSTS = ("auto", "isolated", "in_process")

_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTES = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
          "g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30}  # fmt: skip


def _scaled(name: str, value: Any, units: Mapping[str, float], example: str) -> float:
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
        if found and found[2] in units:
            return float(found[1]) * units[found[2]]
    # A bool is an int to Python, and NaN is less than nothing.
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 9e15:
        return value
    raise ValueError(f"limit {name}: {value!r} is neither a number nor a text such as {example}")


@dataclass(frozen=True)
class Limits:
    """What one sample may use. ``None`` means the daemon's usual, which is given in brackets.

    Times are seconds or texts such as ``"500ms"``; sizes are bytes or texts such as ``"512MiB"`` (powers of 1024).
    """

    #: CPU time of all its processes, user and system, in seconds [3].
    cpu: Union[float, str, None] = None
    #: Time since its start, in seconds; waiting for a processor does not count [three times ``cpu``].
    wall: Union[float, str, None] = None
    #: Memory beyond the warm interpreter's, in bytes [1 GiB].
    memory: Union[int, str, None] = None
    #: Standard output and error together, in bytes [4 MiB].
    output: Union[int, str, None] = None
    #: All files in its folder, in bytes [64 MiB].
    disk: Union[int, str, None] = None
    #: Files and folders in its folder [4096].
    inodes: Optional[int] = None
    #: Threads and processes at a time, together [128].
    processes: Optional[int] = None
    #: Open descriptors of a process [1024].
    files: Optional[int] = None
    #: Whether it may start processes [no]; a daemon that does not allow them refuses the job.
    allow_processes: Optional[bool] = None

    @classmethod
    def of(cls, value: "LimitsLike") -> "Limits":
        """Reads limits from themselves, a mapping of their names, a text as on evald's command line, or ``None``.

        >>> Limits.of("cpu=10s,memory=2GiB")
        Limits(cpu='10s', wall=None, memory='2GiB', output=None, disk=None, inodes=None, processes=None, files=None, allow_processes=None)

        Raises ``ValueError`` for a name or value that is none.
        """
        if value is None:
            return cls()
        if isinstance(value, Limits):
            return value
        names = {entry.name for entry in fields(cls)}
        if isinstance(value, str):
            parts: Dict[str, Any] = {}
            for part in filter(None, (part.strip() for part in value.split(","))):
                name, equals, text = (piece.strip() for piece in part.partition("="))
                name = "processes" if name == "threads" else name
                if not equals:
                    raise ValueError(f"{part!r} is no limit; expected NAME=VALUE with a name of {', '.join(sorted(names))}")
                if name in parts:
                    raise ValueError(f"limit {name} is given twice")
                parts[name] = int(text) if name in ("inodes", "processes", "files") and text.isdecimal() else text
            value = parts
        unknown = sorted(set(value) - names)
        if unknown:
            raise ValueError(f"no limit is named {unknown[0]!r}; there are {', '.join(sorted(names))}")
        limits = cls(**value)
        limits.to_wire()
        return limits

    def to_wire(self) -> Dict[str, Any]:
        """The object on the wire: milliseconds, bytes and numbers. Raises ``ValueError`` for a value that is none."""
        wire: Dict[str, Any] = {}
        for name in ("cpu", "wall"):
            value = getattr(self, name)
            if value is not None:
                wire[f"{name}_ms"] = max(1, round(_scaled(name, value, _SECONDS, "10s or 500ms") * 1000))
        for name in ("memory", "output", "disk"):
            value = getattr(self, name)
            if value is not None:
                wire[f"{name}_bytes"] = int(_scaled(name, value, _BYTES, "512MiB"))
        for name in ("inodes", "processes", "files"):
            value = getattr(self, name)
            if value is not None:
                wire[name] = int(_scaled(name, value, {"": 1}, "100"))
        if self.allow_processes is not None:
            if not isinstance(self.allow_processes, bool):
                raise ValueError(f"limit allow_processes: {self.allow_processes!r} is neither True nor False")
            wire["allow_processes"] = self.allow_processes
        return wire


LimitsLike = Union[Limits, Mapping[str, Any], str, None]


@dataclass(frozen=True)
class Program:
    """Runs a job's code as a program by itself, as ``python file.py`` does, without a test."""

    #: Its standard input.
    stdin: str = ""
    #: Files in its folder before it starts: bytes by relative path.
    files: Mapping[str, bytes] = field(default_factory=dict)
    #: Relative paths of files whose bytes the result carries.
    fetch: Sequence[str] = ()

    def to_wire(self) -> Dict[str, Any]:
        """The object on the wire."""
        files = {path: base64.b64encode(data).decode("ascii") for path, data in self.files.items()}
        return {"stdin": self.stdin, "files": files, "fetch": list(self.fetch)}


@dataclass(frozen=True)
class Job:
    """One piece of Python to run and the test that decides it; the fields are explained at :func:`evald.run`."""

    code: str
    test: str = ""
    entry_point: str = ""
    prompt: str = ""
    trust: str = "auto"
    limits: LimitsLike = None
    keep_output: bool = False
    env: str = ""
    #: The caller's name for it; it comes back with the result, and jobs may share one.
    id: str = ""
    program: Optional[Program] = None

    def to_wire(self, wire_id: str) -> Dict[str, Any]:
        """The request on the wire. Raises ``TypeError`` or ``ValueError`` for a field that is of no use."""
        for name in ("code", "test", "entry_point", "prompt", "env"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"job {self.id!r}: {name} is {type(getattr(self, name)).__name__}, not a string")
        if self.trust not in TRUSTS:
            raise ValueError(f"job {self.id!r}: no trust {self.trust!r}: expected one of {', '.join(TRUSTS)}")
        request = {"op": "run", "id": wire_id, "code": self.code, "test": self.test, "env": self.env,
                   "entry_point": self.entry_point, "prompt": self.prompt, "trust": self.trust,
                   "limits": Limits.of(self.limits).to_wire(), "keep_output": bool(self.keep_output)}  # fmt: skip
        if self.program is not None:
            request["program"] = self.program.to_wire()
        return request


@dataclass(frozen=True)
class Result:
    """How one job ended."""

    #: The job's ``id``, as its caller named it.
    id: str
    #: ``passed``, ``failed``, ``compile_error``, ``timeout_cpu``, ``timeout_wall``, ``oom``, ``output_limit``,
    #: ``disk_limit``, ``proc_limit``, ``policy_violation``, ``signaled``, ``no_verdict``, ``tampered``, ``no_test`` (the
    #: test asserted nothing, or cannot run where it was asked to) or ``infra_error`` (the sandbox failed; not counted).
    verdict: str
    #: True for the verdict ``passed`` alone.
    passed: bool
    #: ``isolated`` (the test ran out of the candidate's reach), ``outside`` (limits, compile errors) or ``in_process``.
    trust: str
    #: Why that is not ``isolated``.
    trust_reason: str = ""
    #: The tier that ran it, ``T0`` to ``T4``; empty where it did not reach the daemon.
    tier: str = ""
    #: CPU time used, in milliseconds.
    cpu_ms: float = 0.0
    #: Time since the candidate's start, in milliseconds.
    wall_ms: float = 0.0
    #: One line for people: the exception and its line, the limit that was hit, the system call.
    detail: str = ""
    #: What it wrote, where that was asked for; a program's standard output.
    output: str = ""
    #: What a program wrote to standard error.
    errors: str = ""
    #: A program's exit status, or minus the signal that ended it; ``None``: a limit ended it, or it did not start.
    exit_status: Optional[int] = None
    #: The files that were to be fetched; ``None``: not there, or beyond the limit on output.
    files: Mapping[str, Optional[bytes]] = field(default_factory=dict)
    #: The job's position among those that were given to :meth:`evald.Client.run_all`.
    index: int = 0

    @classmethod
    def from_wire(cls, reply: Mapping[str, Any], job_id: str, index: int) -> "Result":
        """Reads a reply; fields that a newer daemon adds are passed over."""
        known = {entry.name for entry in fields(cls)}
        values = {name: value for name, value in reply.items() if name in known}
        files = {path: None if data is None else base64.b64decode(data) for path, data in reply.get("files", {}).items()}
        values.update(id=job_id, index=index, files=files)
        return cls(**values)

    def to_dict(self) -> Dict[str, Any]:
        """What is worth keeping in a file of results: verdict, trust, tier, times and detail."""
        names = ("verdict", "passed", "trust", "trust_reason", "tier", "cpu_ms", "wall_ms", "detail")
        return {name: getattr(self, name) for name in names}


class Unsendable(Exception):
    """A job that cannot be put on the wire because of what its program is."""


def encode(request: Mapping[str, Any]) -> bytes:
    """The line of a request. Raises :class:`Unsendable` for half of a surrogate pair and for a line that is too long."""
    try:
        line = json.dumps(request, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise Unsendable(f"half of a surrogate pair (U+{half:04X}), which no source file can hold") from None
    if len(line) > MAX_LINE_BYTES:
        raise Unsendable(f"the job has {len(line)} bytes, more than the {MAX_LINE_BYTES} that a job may have")
    return line
