"""Finding, starting and ending a private daemon."""

import os
import socket
import subprocess
import sys
import threading
from typing import List, Optional, Sequence

from .errors import StartError

#: How long a daemon whose connection is closed may take to end, in seconds.
_END_PATIENCE = 2.0
#: How much of what it wrote last is kept, in bytes.
_KEPT = 4 << 10


def executable() -> str:
    """The ``evald`` that is to be started: ``EVALD_EXECUTABLE``, else the one that this package carries.

    Raises :class:`evald.StartError` where there is none.
    """
    named = os.environ.get("EVALD_EXECUTABLE")
    path = named or os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "evald")
    if not os.path.isfile(path):
        raise StartError(
            f"there is no evald at {path}"
            + (" (EVALD_EXECUTABLE)" if named else ": this package was not installed from its wheel")
            + "; install the wheel that `make wheel` builds, or name an executable (EVALD_EXECUTABLE) or the socket of a"
            " daemon that serves (EVALD_SOCKET)"
        )
    if not os.access(path, os.X_OK):
        raise StartError(f"this user may not execute {path}; an administrator may: chmod 755 {path}")
    return path


class Daemon:
    """A daemon that listens nowhere, serves one client over a socket pair, and ends with it."""

    def __init__(self, command: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        try:
            # A terminal's Ctrl-C is for this process, which then ends the daemon in order.
            self._process = subprocess.Popen(
                list(command), stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            ours.close()
            raise StartError(f"cannot start {command[0]}: {error.strerror or error}") from error
        finally:
            # While this end is open here as well, the daemon's death would not be seen.
            theirs.close()
        #: This client's end of the pair.
        self.socket = ours
        self._said = b""
        self._reader = threading.Thread(target=self._read, name="evald's log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return self._process.pid

    def _read(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        while True:
            try:
                # What is there, not what fills a buffer.
                got = os.read(stream.fileno(), 4096)
            except (OSError, ValueError):
                break
            if not got:
                break
            self._said = (self._said + got)[-_KEPT:]

    def last_words(self) -> str:
        """The error that it wrote last, or all that it wrote where there is none. Waits for its end, but not for long."""
        self._reader.join(_END_PATIENCE)
        text = self._said.decode("utf-8", "replace")
        errors = [line.split(": ", 1)[1] for line in text.splitlines() if line.startswith(("evald: ", "error: "))]
        return errors[-1] if errors else "; ".join(text.split("\n")).strip("; ")

    def status(self) -> str:
        """How its process ended, in words."""
        try:
            code = self._process.wait(_END_PATIENCE)
        except subprocess.TimeoutExpired:
            return "it still runs"
        return f"signal {-code} ended it" if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """Waits for its end, which follows the closing of the connection; one that hangs is killed."""
        try:
            self._process.wait(_END_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_END_PATIENCE)
        if self._process.stderr is not None and not self._reader.is_alive():
            self._process.stderr.close()


def command_line(
    evald: Optional[str],
    python: Optional[str],
    modules: Sequence[str],
    paths: Sequence[str],
    tier: Optional[str],
    slots: Optional[int],
    allow_processes: bool,
) -> List[str]:
    """The command that starts a private daemon; the environment is named ``python``."""
    interpreter = python or sys.executable
    if not interpreter:
        raise StartError("this interpreter does not know its own path; name one: Client(python=...)")
    environment = f"python={interpreter}" + (":" + ",".join(modules) if modules else "")
    command = [evald or executable(), "serve", "--stdio", "--env", environment]
    for path in paths:
        command += ["--path", os.fspath(path)]
    if tier is not None:
        command += ["--tier", tier]
    if slots is not None:
        command += ["--slots", str(int(slots))]
    if allow_processes:
        command += ["--allow", "processes"]
    return command


def connect(path: str) -> socket.socket:
    """Connects to the daemon that listens on ``path``. Raises :class:`evald.StartError`."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.connect(path)
    except OSError as error:
        stream.close()
        raise StartError(
            f"cannot reach evald at {path}: {error.strerror or error}; start one (evald serve --socket {path}), or unset"
            " EVALD_SOCKET to have a private one"
        ) from error
    return stream
