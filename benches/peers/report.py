"""What the side-by-side scripts share: running a command under the system's own accounting, and the report's head."""

import os
import platform
import subprocess
import time


class Run:
    """One finished command: user + system CPU seconds, wall seconds, peak resident MiB (the kernel's figures)."""

    def __init__(self, command, env=None):
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[0]} ended with status {process.returncode}: run it by hand to see why")
        self.wall = time.monotonic() - started
        self.cpu = usage.ru_utime + usage.ru_stime
        self.peak_mib = usage.ru_maxrss / 1024


def head(title, versions):
    """The report's first lines: machine, load, versions."""
    with open("/proc/cpuinfo") as cpuinfo:
        cpu = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine())
    print(f"# {title}\n")
    print(f"- machine: {os.cpu_count()} x {cpu}; Linux {platform.release()}; load at the start {os.getloadavg()[0]:.1f}")
    print(f"- date: {time.strftime('%Y-%m-%d')}; commit {output(['git', 'rev-parse', '--short', 'HEAD'])}")
    for name, version in versions.items():
        print(f"- {name}: {version}")
    print()


def output(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def median(values):
    values = sorted(values)
    return values[len(values) // 2]
