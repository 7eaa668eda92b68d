"""A serving evald and its JSON lines, for the scripts here."""

import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


class Daemon:
    """evald on a socket of its own; `with Daemon("py=python3") as daemon`."""

    def __init__(self, env, *options):
        self.folder = tempfile.TemporaryDirectory()
        self.socket = str(Path(self.folder.name, "socket"))
        command = [str(TARGET / "evald"), "serve", "--socket", self.socket, "--env", env, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while not os.path.exists(self.socket):
            if self.process.poll() is not None:
                raise SystemExit("evald did not start")
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def connect(self):
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(self.socket)
        return stream

    def tree(self):
        """Process ids of the daemon and all below it."""
        parents = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                parents[int(name)] = int(Path("/proc", name, "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
        found = [self.process.pid]
        for pid in found:
            found.extend(child for child, parent in parents.items() if parent == pid)
        return found

    def cpu(self):
        """CPU seconds of the daemon and all below it, samples that have ended included (their slots have waited for them)."""
        ticks = 0
        for pid in self.tree():
            try:
                ticks += sum(map(int, Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[11:15]))
            except OSError:
                pass
        return ticks / os.sysconf("SC_CLK_TCK")

    def metrics(self):
        """What it has counted: {'name{labels}': value}."""
        stream = self.connect()
        stream.sendall(b'{"op":"metrics"}\n')
        text = json.loads(stream.makefile().readline())["text"]
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}


def run(stream, jobs, window=16, until=None):
    """Runs (code, test) pairs, several at a time; yields (index, verdict row) as they end. Stops sending at `until`."""
    lines, jobs, under_way = stream.makefile("r"), enumerate(jobs), 0
    more = True
    while more or under_way:
        while more and under_way < window:
            index, (code, test, limits) = next(jobs, (None, (None, None, None)))
            more = index is not None and (until is None or time.monotonic() < until)
            if more:
                request = {"op": "run", "id": str(index), "code": code, "test": test, "limits": limits}
                stream.sendall(json.dumps(request).encode() + b"\n")
                under_way += 1
        if under_way:
            reply = json.loads(lines.readline())
            if reply["reply"] != "verdict":
                raise SystemExit(f"evald says: {reply}")
            under_way -= 1
            yield int(reply["id"]), reply
