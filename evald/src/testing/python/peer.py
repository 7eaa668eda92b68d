"""The two ends of the line between a candidate and its judge."""
import posix

READ, WRITE = posix.read, posix.write
MOST = 1 << 30


class Gone(BaseException):
    """The other process has ended."""


class Line:
    """Messages: a length (u32 LE) and so many bytes."""

    def __init__(self, fd):
        self.fd = fd

    def send(self, writer):
        data = writer.bytes()
        data = memoryview(U32.pack(len(data)) + data)
        while data:
            try:
                data = data[WRITE(self.fd, data) :]
            except InterruptedError:
                pass
            except OSError:
                raise Gone from None

    def exactly(self, count):
        parts = []
        while count:
            try:
                part = READ(self.fd, min(count, 1 << 20))
            except InterruptedError:
                continue
            except OSError:
                raise Gone from None
            if not part:
                raise Gone
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def receive(self):
        count = U32.unpack(self.exactly(4))[0]
        if count > MOST:
            raise Gone
        return memoryview(self.exactly(count))


def chain(kind):
    """An exception's classes by name, the nearest first."""
    return [(base.__module__, base.__qualname__) for base in kind.__mro__ if base is not object]


def get_seeds():
    state = [loaded("random").getstate() if loaded("random") else None]
    state.append(loaded("numpy").random.get_state() if loaded("numpy") else None)
    return state


def set_seeds(seeds):
    if seeds[0] is not None:
        module("random").setstate(seeds[0])
    if seeds[1] is not None:
        module("numpy").random.set_state(seeds[1])
