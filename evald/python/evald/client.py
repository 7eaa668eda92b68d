"""The connection to a daemon, on which jobs of any number of threads are pipelined."""

import atexit
import json
import os
import queue
import socket as sockets
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from . import daemon
from .errors import AnswerTimeout, ConnectionLost, EvaldError, Refused, StartError
from .wire import MAX_LINE_BYTES, PROTOCOL_VERSION, Job, LimitsLike, Program, Result, Unsendable, encode

#: Runs of one job before an ``infra_error`` is believed.
_ATTEMPTS = 3
#: How long a daemon may take to say hello, in seconds: it imports the environment's modules first.
_START_TIMEOUT = 360.0


@dataclass(frozen=True)
class Info:
    """What a daemon is."""

    #: Its version.
    version: str
    #: The tier that runs jobs, ``T0`` to ``T4``.
    tier: str
    #: Names of its environments; the first is the default.
    envs: Tuple[str, ...]
    #: Jobs that it runs side by side.
    slots: int
    #: Unanswered requests that it takes from one connection.
    max_in_flight: int


class _Flight:
    """A job that was sent, and where its answer goes; ``answers`` is ``None`` once nobody waits for it."""

    __slots__ = ("answers", "attempt", "index", "job")

    def __init__(self, job: Job, index: int, answers: "queue.SimpleQueue[Any]") -> None:
        self.job, self.index, self.attempt = job, index, 1
        self.answers: Optional["queue.SimpleQueue[Any]"] = answers


class Client:
    """A daemon that runs jobs: a private one, which ends with this client and with this process, or one that serves.

    :param socket: the Unix socket of a daemon that serves; default: ``EVALD_SOCKET``. Where that is not set either, a
        private daemon is started, to which the parameters below apply.
    :param python: the interpreter that runs samples; default: the one that runs this.
    :param modules: modules to import once, before all samples, such as ``["numpy"]``.
    :param paths: folders on the samples' module search path, read-only.
    :param tier: ``T0`` to ``T4``; default: the strongest of this host.
    :param slots: samples side by side; default: one per core.
    :param allow_processes: whether samples may start processes.
    :param evald: the daemon's executable; default: the one of this package, or ``EVALD_EXECUTABLE``.
    :param timeout: how long :meth:`run` and :meth:`run_all` wait for the next answer, in seconds; default: for ever, since
        the daemon itself ends what runs over its limits.
    :param start_timeout: how long the daemon may take until it takes jobs, in seconds.

    Any number of threads may use one client. Close it, or use it in a ``with`` statement. After ``os.fork`` the child
    cannot use its parent's.

    :raises evald.StartError: no daemon can be started or reached, or the host lacks the tier; the message says what to do.
    :raises evald.Refused: the daemon turns this user away or has no room.
    """

    def __init__(
        self,
        socket: Optional[str] = None,
        *,
        python: Optional[str] = None,
        modules: Sequence[str] = (),
        paths: Sequence[str] = (),
        tier: Optional[str] = None,
        slots: Optional[int] = None,
        allow_processes: bool = False,
        evald: Optional[str] = None,
        timeout: Optional[float] = None,
        start_timeout: float = _START_TIMEOUT,
    ) -> None:
        self.timeout = timeout
        self._pid = os.getpid()
        self._state = threading.Condition()
        self._sending = threading.Lock()
        self._flights: Dict[str, _Flight] = {}
        self._next_id = 0
        self._dead: Optional[EvaldError] = None
        self._closed = False
        self._reader: Optional[threading.Thread] = None
        self._metrics: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._private: Optional[daemon.Daemon] = None
        path = socket or os.environ.get("EVALD_SOCKET")
        if path:
            self._stream = daemon.connect(os.fspath(path))
        else:
            command = daemon.command_line(evald, python, modules, paths, tier, slots, allow_processes)
            self._private = daemon.Daemon(command)
            self._stream = self._private.socket
        _clients.add(self)
        try:
            self._lines = _Lines(self._stream)
            #: What the daemon is.
            self.info = self._greet(start_timeout)
            self._reader = threading.Thread(target=self._read, name="evald's answers", daemon=True)
            self._reader.start()
        except BaseException:
            self.close()
            raise

    def _greet(self, patience: float) -> Info:
        try:
            self._stream.sendall(encode({"op": "hello"}))
        except OSError:
            pass  # Why it has hung up is still to be read.
        self._stream.settimeout(patience)
        try:
            reply = self._lines.next()
        except sockets.timeout:
            raise AnswerTimeout(f"evald did not answer within {patience:g} s; are the modules that it imports that slow?") from None
        except (OSError, ValueError) as error:
            reply = None
            reason = str(error)
        else:
            reason = "it hung up without a word"
        self._stream.settimeout(None)
        if reply is None:
            if self._private is not None:
                said = self._private.last_words() or f"it said nothing ({self._private.status()})"
                raise StartError(f"evald did not start: {said}; `evald check` says what this host offers")
            raise StartError(f"evald does not answer: {reason}")
        if reply.get("reply") == "error":
            raise Refused(reply.get("code", "other"), reply.get("message", ""))
        if reply.get("reply") != "hello" or reply.get("protocol") != PROTOCOL_VERSION:
            raise StartError(
                f"this daemon speaks protocol {reply.get('protocol')!r}, this client {PROTOCOL_VERSION}; install the same version of both"
            )
        return Info(reply["version"], reply["tier"], tuple(reply["envs"]), reply["slots"], reply.get("max_in_flight", 16))

    @property
    def private(self) -> bool:
        """Whether the daemon is this client's own, rather than one that serves others too."""
        return self._private is not None

    def run(self, job: Job, *, timeout: Optional[float] = None) -> Result:
        """Runs one job and returns its result. ``timeout`` and errors are those of :meth:`run_all`."""
        for result in self.run_all([job], timeout=timeout):
            return result
        raise AssertionError("run_all yields a result for every job")

    def run_all(
        self, jobs: Iterable[Job], *, in_flight: Optional[int] = None, timeout: Optional[float] = None
    ) -> Iterator[Result]:
        """Runs many jobs, several at a time, and yields each result as it comes, in any order (``Result.index``).

        ``jobs`` is only advanced as far as the daemon has room, so it may be long and lazy. A program that no job can
        hold (half of a surrogate pair, over 16 MiB) is a ``compile_error`` of its own; what ends in ``infra_error`` is run
        again, up to three times in all. Where the iteration is left (``break``, an exception, Ctrl-C), what is under way
        is cancelled.

        :param in_flight: unanswered jobs at a time; default: what keeps every slot busy.
        :param timeout: how long to wait for the next answer, in seconds; default: the client's.
        :raises TypeError, ValueError: a job's field is of no use (named in the message).
        :raises evald.Refused: the daemon refuses a job: an unknown environment, a limit over its ceiling.
        :raises evald.AnswerTimeout: no answer came within ``timeout``.
        :raises evald.ConnectionLost: the daemon is gone.
        """
        window = min(4 * self.info.slots + 4, self.info.max_in_flight)
        if in_flight is not None:
            window = max(1, min(window, in_flight))
        patience = self.timeout if timeout is None else timeout
        answers: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        mine: Dict[str, _Flight] = {}
        source = enumerate(jobs)
        waiting: Optional[_Flight] = None
        more = True
        try:
            while True:
                while more and len(mine) < window:
                    if waiting is None:
                        index, job = next(source, (0, None))
                        if job is None:
                            more = False
                            break
                        waiting = _Flight(job, index, answers)
                    try:
                        # With answers of its own to come, it takes no more room than there is.
                        if not self._launch(waiting, mine, wait=not mine):
                            break
                    except Unsendable as reason:
                        flight, waiting = waiting, None
                        yield Result(flight.job.id, "compile_error", False, "outside", detail=str(reason), index=flight.index)
                        continue
                    waiting = None
                if not mine:
                    return
                try:
                    wire_id, reply = answers.get(timeout=patience)
                except queue.Empty:
                    raise AnswerTimeout(f"evald has not answered within {patience:g} s; {len(mine)} jobs are under way") from None
                if isinstance(reply, EvaldError):
                    raise type(reply)(*reply.args)
                flight = mine.pop(wire_id)
                if reply["reply"] == "error":
                    raise Refused(reply.get("code", "other"), reply.get("message", ""), flight.job.id)
                if reply["verdict"] == "infra_error" and flight.attempt < _ATTEMPTS:
                    flight.attempt += 1
                    self._launch(flight, mine, wait=True)
                else:
                    yield Result.from_wire(reply, flight.job.id, flight.index)
        finally:
            self._call_back(mine)

    def metrics(self) -> str:
        """What the daemon has counted since its start, in Prometheus' text format. Errors are those of :meth:`run_all`."""
        with self._sending:
            self._send({"op": "metrics"})
            reply = self._metrics.get()
        if isinstance(reply, EvaldError):
            raise reply
        return str(reply["text"])

    def _launch(self, flight: _Flight, mine: Dict[str, _Flight], wait: bool) -> bool:
        """Sends a job, or says that there is no room on the connection."""
        self._usable()
        with self._state:
            while len(self._flights) >= self.info.max_in_flight and self._dead is None:
                if not wait:
                    return False
                self._state.wait()
            wire_id = str(self._next_id)
            self._next_id += 1
            self._flights[wire_id] = flight
        try:
            line = encode(flight.job.to_wire(wire_id))
        except BaseException:
            self._landed(wire_id)
            raise
        mine[wire_id] = flight
        with self._sending:
            self._send_line(line)
        return True

    def _landed(self, wire_id: str) -> Optional[_Flight]:
        with self._state:
            self._state.notify_all()
            return self._flights.pop(wire_id, None)

    def _call_back(self, mine: Mapping[str, _Flight]) -> None:
        """Cancels jobs whose answers nobody waits for; what is still said of them is passed over."""
        for wire_id, flight in mine.items():
            flight.answers = None
            if self._dead is None and not self._closed and self._pid == os.getpid():
                try:
                    with self._sending:
                        self._send({"op": "cancel", "id": wire_id})
                except EvaldError:
                    return

    def _usable(self) -> None:
        if self._pid != os.getpid():
            raise EvaldError("this client belongs to the parent process; make one in this process")
        if self._closed:
            raise EvaldError("this client is closed")
        if self._dead is not None:
            raise type(self._dead)(*self._dead.args)

    def _send(self, request: Mapping[str, Any]) -> None:
        self._usable()
        self._send_line(encode(request))

    def _send_line(self, line: bytes) -> None:
        try:
            self._stream.sendall(line)
        except OSError as error:
            # Why it has hung up is still to be read: the reader's error says more.
            if self._reader is not None:
                self._reader.join(1.0)
            if self._dead is not None:
                raise type(self._dead)(*self._dead.args) from None
            raise ConnectionLost(f"the connection to evald broke: {error.strerror or error}") from None
        except BaseException:
            # Half a line is out (Ctrl-C): nothing can follow it.
            self._stream.shutdown(sockets.SHUT_RDWR)
            raise

    def _read(self) -> None:
        """The thread that hands every answer to the job that it belongs to."""
        error: Optional[EvaldError] = None
        try:
            while error is None:
                reply = self._lines.next()
                if reply is None:
                    break
                kind, wire_id = reply.get("reply"), reply.get("id")
                if kind == "metrics":
                    self._metrics.put(reply)
                elif kind in ("verdict", "error") and isinstance(wire_id, str):
                    flight = self._landed(wire_id)
                    if flight is not None and flight.answers is not None:
                        flight.answers.put((wire_id, reply))
                elif kind == "error" and reply.get("code") != "nothing_to_cancel":
                    # About the connection as a whole: the daemon hangs up.
                    error = ConnectionLost(f"evald hangs up: {reply.get('message', '')}")
        except (OSError, ValueError) as cause:
            error = ConnectionLost(f"the connection to evald broke: {cause}")
        if error is None and not self._closed:
            how = ""
            if self._private is not None:
                how = "; ".join(filter(None, (self._private.status(), self._private.last_words())))
            error = ConnectionLost("evald is gone" + (f": {how}" if how else " (its socket was closed)"))
        self._fail(error or EvaldError("this client was closed while jobs were under way"))

    def _fail(self, error: EvaldError) -> None:
        with self._state:
            self._dead = error
            flights, self._flights = self._flights, {}
            self._state.notify_all()
        self._metrics.put(error)
        for wire_id, flight in flights.items():
            if flight.answers is not None:
                flight.answers.put((wire_id, error))

    def close(self) -> None:
        """Ends the connection and a private daemon with all that it runs. A closed client may be closed again."""
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():
            self._stream.close()
            return
        try:
            self._stream.shutdown(sockets.SHUT_RDWR)
        except OSError:
            pass
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join()
        self._stream.close()
        if self._private is not None:
            self._private.end()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.info.tier}, {self.info.slots} slots" if hasattr(self, "info") else "starting"
        return f"<evald.Client: {state}>"


class _Lines:
    """Reads replies off a socket."""

    def __init__(self, stream: sockets.socket) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._ready: List[bytes] = []

    def next(self) -> Optional[Dict[str, Any]]:
        """The next reply; ``None`` at the end. Raises ``OSError``, and ``ValueError`` for what is no reply."""
        while not self._ready:
            got = self._stream.recv(1 << 16)
            if not got:
                return None
            *lines, rest = got.split(b"\n")
            if lines:
                lines[0] = bytes(self._buffer) + lines[0]
                self._buffer.clear()
                self._ready = lines[::-1]
            self._buffer += rest
            if len(self._buffer) > MAX_LINE_BYTES:
                raise ValueError(f"a line over {MAX_LINE_BYTES} bytes")
        reply = json.loads(self._ready.pop())
        if not isinstance(reply, dict):
            raise ValueError("a line that is no reply")
        return reply


#: All clients, so that a forked child gives up its copies of their sockets: a daemon ends when the last one is closed.
_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()
#: Clients of the whole process, by their number of slots.
_defaults: Dict[Optional[int], Client] = {}
_default_lock = threading.Lock()


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    _defaults.clear()
    for client in list(_clients):
        client._stream.close()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_defaults() -> None:
    while _defaults:
        _defaults.popitem()[1].close()


def default_client(slots: Optional[int] = None) -> Client:
    """The process' own client with so many slots, for calls that are given none.

    It is made when it is first needed, or when its daemon is gone, and ends with the process.
    """
    with _default_lock:
        client = _defaults.get(slots)
        if client is None or client._dead is not None or client._closed:
            if client is not None:
                client.close()
            client = _defaults[slots] = Client(slots=slots)
        return client


def run(
    code: str,
    test: str = "",
    entry_point: str = "",
    *,
    prompt: str = "",
    trust: str = "auto",
    limits: LimitsLike = None,
    keep_output: bool = False,
    env: str = "",
    id: str = "",
    client: Optional[Client] = None,
    timeout: Optional[float] = None,
) -> Result:
    """Runs ``code`` and the test that decides it, in a sandbox, and returns how that ended.

    >>> evald.run("def double(x): return 2 * x", "assert double(4) == 8").verdict
    'passed'

    :param code: the candidate: prompt and completion.
    :param test: what decides. Where it defines ``check`` and does not call it, ``check(entry_point)`` is called after it;
        unittest, pytest-style and doctest tests are run as well. One that asserts nothing as it runs is ``no_test``.
    :param entry_point: the function that the test is about.
    :param prompt: the part of ``code`` that the problem gives: an isolated test has its functions and modules too.
    :param trust: ``isolated``: the test runs in a process of its own, which the candidate reaches by the data of its answers
        alone; a test that cannot is ``no_test``. ``in_process``: beside the candidate, which can then forge its verdict.
        ``auto``: isolated where the test can be, else beside it (``Result.trust`` and ``trust_reason`` say which and why).
    :param limits: :class:`evald.Limits`, a mapping or text of them: ``{"cpu": 10}``, ``"cpu=10s,memory=2GiB"``; times in
        seconds, sizes in bytes.
    :param keep_output: whether the result has what was written to standard output and error.
    :param env: an environment of the daemon by name; default: its first.
    :param id: a name for the job, which the result carries.
    :param client: default: one for the process, with a private daemon or the one at ``EVALD_SOCKET``.
    :param timeout: how long to wait for the answer, in seconds; default: the client's.
    :raises: what :class:`evald.Client` and :meth:`evald.Client.run_all` raise.
    """
    job = Job(code, test, entry_point, prompt, trust, limits, keep_output, env, id)
    return (client or default_client()).run(job, timeout=timeout)


def run_program(
    code: str,
    stdin: str = "",
    *,
    files: Optional[Mapping[str, bytes]] = None,
    fetch: Sequence[str] = (),
    limits: LimitsLike = None,
    env: str = "",
    client: Optional[Client] = None,
    timeout: Optional[float] = None,
) -> Result:
    """Runs ``code`` as a program by itself, as ``python file.py`` does, without a test.

    The result has its ``output``, ``errors``, ``exit_status`` and the ``files`` of ``fetch``.

    :param stdin: its standard input.
    :param files: files in its folder before it starts, by relative path.
    :param fetch: relative paths of files whose bytes the result carries.

    The other parameters and errors are those of :func:`run`.
    """
    program = Program(stdin, files or {}, fetch)
    job = Job(code, limits=limits, env=env, program=program)
    return (client or default_client()).run(job, timeout=timeout)
