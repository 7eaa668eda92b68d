#!/usr/bin/env python3
"""What hostile clients cost another client of the same evald: hostile.py [SECONDS]

One well-behaved client runs trivial samples one at a time for SECONDS (default 8), before each kind of hostile client and beside it:
the wait from its request to its verdict is what is held against each other, and against the daemon's memory.
"""

import json
import multiprocessing
import resource
import socket
import sys
import time
from pathlib import Path

from daemon import TARGET, Daemon, run
from report import head, output

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
PORT = 18731
TRIVIAL = ("x = 1\n", "assert x == 1\n", {"cpu_ms": 2000})


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

    def drip(self):
        """A byte more on each connection held; those that were hung up on go."""
        for stream in list(self.held):
            try:
                stream.sendall(b" ")
                self.did += 1
            except OSError:
                self.held.remove(stream)

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
            try:
                stream.sendall(begun)
                self.held.append(stream)
            except OSError:
                # It is over what one process may hold.
                self.did += 1
        while not self.over.is_set():
            self.drip()
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


class LongJobs(Attack):
    """1 client with two jobs of 30 s, again and again"""

    def attack(self):
        stream = self.daemon.connect()
        self.held.append(stream)
        endless = ("while True: pass\n", "", {"cpu_ms": 30_000})
        for _ in run(stream, iter(lambda: None if self.over.is_set() else endless, None), window=2):
            self.did += 1


class Idle(Attack):
    """64 connections that say nothing"""

    def attack(self):
        for _ in range(64):
            self.held.append(self.daemon.connect())
            self.did += 1


class FullHalfLines(Attack):
    """16 connections with 16 MB of a line that does not end"""

    def attack(self):
        begun = b'{"op":"run","id":"x","code":"' + b" " * ((16 << 20) - 100)
        while not self.over.is_set():
            for _ in range(16):
                stream = self.daemon.connect()
                try:
                    stream.sendall(begun)
                except OSError:
                    pass
                self.held.append(stream)
                self.did += 1
            self.over.wait(1)
            self.held.clear()


class LongNames(Attack):
    """jobs for environments with names of 15 MB"""

    def attack(self):
        line = json.dumps({"op": "run", "id": "x", "code": "", "env": "e" * (15 << 20)}).encode() + b"\n"
        while not self.over.is_set():
            stream = self.daemon.connect()
            try:
                stream.sendall(line)
                stream.makefile().readline()
            except OSError:
                pass
            self.did += 1


class Cancels(Attack):
    """jobs and cancels with ever new ids of 200 bytes, no reply read"""

    def attack(self):
        while not self.over.is_set():
            stream = self.daemon.connect()
            stream.settimeout(1)
            try:
                while not self.over.is_set():
                    name = f"{self.did:0200}"
                    stream.sendall(json.dumps({"op": "cancel", "id": name}).encode() + b"\n")
                    stream.sendall(json.dumps({"op": "run", "id": name, "code": "x = 1"}).encode() + b"\n")
                    self.did += 2
            except OSError:
                pass


class ForkBombs(Attack):
    """1 client whose samples start threads and fill memory until they are ended"""

    def attack(self):
        stream = self.daemon.connect()
        self.held.append(stream)
        bomb = (
            "import threading, time\nx = []\nfor _ in range(100): threading.Thread(target=time.sleep, args=(9,)).start()\n"
            "while True: x.append(bytearray(1 << 20))\n"
        )
        job = (bomb, "", {"cpu_ms": 2000})
        for _ in run(stream, iter(lambda: None if self.over.is_set() else job, None), window=64):
            self.did += 1


class WebHalves(Attack):
    """500 HTTP connections, each with half a request that goes on a byte at a time"""

    def attack(self):
        head = b"POST /run_code HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        while not self.over.is_set():
            while len(self.held) < 500:
                stream = socket.create_connection(("127.0.0.1", PORT))
                stream.sendall(head)
                self.held.append(stream)
            self.drip()
            time.sleep(0.05)


class WebCrowd(Attack):
    """100 HTTP connections with a program of 3 s each, again and again, replies unread"""

    def attack(self):
        body = json.dumps({"code": "while True: pass", "language": "python", "run_timeout": 3}).encode()
        request = b"POST /run_code HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        while not self.over.is_set():
            for _ in range(100):
                stream = socket.create_connection(("127.0.0.1", PORT))
                stream.sendall(request * 4)
                self.held.append(stream)
                self.did += 4
            self.over.wait(5)
            self.held.clear()


def waits(daemon):
    """Waits of a client that has one trivial sample under way at a time: median and 95th percentile, ms."""
    stream, ends, taken = daemon.connect(), time.monotonic() + SECONDS, []
    while time.monotonic() < ends:
        began = time.monotonic()
        for _, row in run(stream, [TRIVIAL]):
            if row["verdict"] != "passed":
                raise SystemExit(f"a verdict under attack: {row}")
        taken.append((time.monotonic() - began) * 1e3)
    taken.sort()
    return taken[len(taken) // 2], taken[len(taken) * 95 // 100]


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    head(
        "One client beside hostile ones, trivial samples one at a time",
        {"evald": output([str(TARGET / "evald"), "--version"]), "seconds a measurement": f"{SECONDS:.0f}"},
    )
    kinds = (
        HalfLines, FullHalfLines, LongLines, LongNames, Crowd, Idle, Deaf, Cancels, Greedy, LongJobs, ForkBombs, WebHalves, WebCrowd,
    )
    print("| beside it | p50 and p95 wait before, ms | beside | p95 beside, of before | there were | daemon RSS MiB, most |")
    print("|---|---|---|---|---|---|")
    with Daemon("py=python3", "--http", f"127.0.0.1:{PORT}") as daemon:
        waits(daemon)
        for kind in kinds:
            before = waits(daemon)
            attack = kind(daemon)
            attack.process.start()
            time.sleep(0.5)
            beside = waits(daemon)
            status = Path(f"/proc/{daemon.process.pid}/status").read_text()
            rss = int(status.split("VmHWM:")[1].split()[0]) / 1024
            attack.stop()
            Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
            time.sleep(1)
            print(
                f"| {kind.__doc__} | {before[0]:.1f}, {before[1]:.1f} | {beside[0]:.1f}, {beside[1]:.1f} | "
                f"{beside[1] / before[1]:.1f} | {attack.did} | {rss:.0f} |",
                flush=True,
            )


main()
