#!/usr/bin/env python3
"""What hostile clients cost another client of the same evald: hostile.py [SECONDS]

One well-behaved client runs trivial samples for SECONDS (default 8), first alone, then beside each kind of hostile client, and
alone again after each, since the machine's own load changes: the quiet time before and after is what the figure is held against.
"""

import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

from daemon import TARGET, Daemon, run
from report import head, output

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
TRIVIAL = ("x = 1\n", "assert x == 1\n", {"cpu_ms": 2000})


def rate(daemon):
    stream, started, count = daemon.connect(), time.monotonic(), 0
    for _, row in run(stream, iter(lambda: TRIVIAL, None), until=started + SECONDS):
        if row["verdict"] != "passed":
            raise SystemExit(f"a verdict under attack: {row}")
        count += 1
    return count / (time.monotonic() - started)


class Attack:
    """A hostile client, a process of its own, until told to stop; `did` says how much of it there was."""

    def __init__(self, daemon):
        self.daemon, self.held = daemon, []
        self.over, self.counted = multiprocessing.Event(), multiprocessing.Value("q", 0)
        self.process = multiprocessing.Process(target=self.go, daemon=True)

    def go(self):
        try:
            self.attack()
            self.over.wait()
        except OSError:
            if not self.over.is_set():
                raise

    @property
    def did(self):
        return self.counted.value

    @did.setter
    def did(self, value):
        self.counted.value = value

    def stop(self):
        self.over.set()
        self.process.join(5)
        self.process.kill()
        self.process.join()


class HalfLines(Attack):
    """40 connections, each with half a request of 4 MB that goes on a byte at a time"""

    def attack(self):
        begun = b'{"op":"run","id":"x","code":"' + b" " * (4 << 20)
        for _ in range(40):
            stream = self.daemon.connect()
            stream.sendall(begun)
            self.held.append(stream)
        while not self.over.is_set():
            for stream in self.held:
                stream.sendall(b" ")
                self.did += 1
            time.sleep(0.01)


class LongLines(Attack):
    """lines of 1 GB, one after the other (the daemon hangs up at 16 MiB)"""

    def attack(self):
        chunk = b" " * (1 << 20)
        while not self.over.is_set():
            stream = self.daemon.connect()
            try:
                for _ in range(1 << 10):
                    stream.sendall(chunk)
            except OSError:
                pass
            stream.close()
            self.did += 1


class Crowd(Attack):
    """10,000 connections, opened as fast as they are taken and kept open"""

    def attack(self):
        while not self.over.is_set() and self.did < 10_000:
            self.held.append(self.daemon.connect())
            self.did += 1


class Deaf(Attack):
    """one process with 8 connections that send samples for ever and never read a verdict"""

    def attack(self):
        request = json.dumps({"op": "run", "id": "ID", "code": "x = 1", "test": ""}).encode() + b"\n"
        for _ in range(8):
            stream = self.daemon.connect()
            stream.setblocking(False)
            self.held.append(stream)
        while not self.over.is_set():
            for stream in self.held:
                try:
                    stream.send(request.replace(b"ID", str(self.did).encode()))
                    self.did += 1
                except BlockingIOError:
                    pass
            time.sleep(0.001)


class Greedy(Attack):
    """1 client with as many samples in flight as the daemon takes: fair sharing leaves the other half of the slots"""

    def attack(self):
        stream = self.daemon.connect()
        self.held.append(stream)
        for _ in run(stream, iter(lambda: None if self.over.is_set() else TRIVIAL, None), window=250):
            self.did += 1


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    head(
        "One client beside hostile ones, trivial samples",
        {"evald": output([str(TARGET / "evald"), "--version"]), "seconds a measurement": f"{SECONDS:.0f}"},
    )
    print("| beside it | samples/s before, beside, after | beside, of the mean of before and after | there were | daemon RSS MiB |")
    print("|---|---|---|---|---|")
    with Daemon("py=python3") as daemon:
        rate(daemon)
        before = rate(daemon)
        for kind in (HalfLines, LongLines, Crowd, Deaf, Greedy):
            attack = kind(daemon)
            attack.process.start()
            time.sleep(0.5)
            beside = rate(daemon)
            status = Path(f"/proc/{daemon.process.pid}/status").read_text()
            rss = int(status.split("VmRSS:")[1].split()[0]) / 1024
            attack.stop()
            time.sleep(1)
            after = rate(daemon)
            share = beside / ((before + after) / 2)
            print(f"| {kind.__doc__} | {before:.0f}, {beside:.0f}, {after:.0f} | {share:.0%} | {attack.did} | {rss:.0f} |", flush=True)
            before = after


main()
