"""The command ``evald`` of the wheel: the daemon that the package carries (``evald check``, ``evald serve``, ...)."""

import os
import sys

from . import daemon
from .errors import EvaldError


def main() -> int:
    """Becomes the daemon's executable. Returns 1 where there is none."""
    try:
        path = daemon.executable()
        os.execv(path, [path, *sys.argv[1:]])
    except (EvaldError, OSError) as error:
        print(f"evald: {error}", file=sys.stderr)
    return 1
