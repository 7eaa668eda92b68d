"""The candidate's end: it runs what the judge asks for and answers with data. Nothing here is out of the candidate's reach,
and nothing has to be: whatever it makes of an answer is an answer."""
import functools, io, types

FUNCTIONS = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, types.MethodDescriptorType,
    types.WrapperDescriptorType, type([].__len__),
)


UNTOLD = object()


class Candidate:
    def __init__(self, fd, names):
        self.line = Line(fd)
        self.names = names
        self.objects = []
        self.handles = {}
        self.described = set()
        self.entry = ""
        self.shared = ()
        self.watched = {}  # names that the test uses and that hold data, with what they held when it was last told

    def serve(self):
        try:
            while True:
                reader = Reader(self.line.receive(), self.known)
                answer = {b"W": self.introduce, b"C": self.call, b"E": self.evaluate, b"G": self.get, b"S": self.set}
                answer[bytes(reader.take(1))](reader)
        except Gone:
            pass

    # What it says.

    def handle(self, value):
        handle = self.handles.get(id(value))
        if handle is None:
            handle = self.handles[id(value)] = len(self.objects)
            self.objects.append(value)
        return handle

    def writer(self, tag, containers=()):
        writer = Writer(self.other, containers, self.shares)
        writer.out.append(tag)
        return writer

    def shares(self, kind):
        return kind.__module__.partition(".")[0] in self.shared and found(kind.__module__, kind.__qualname__) is kind

    def other(self, writer, value):
        kind = type(value)
        if isinstance(value, types.ModuleType) and value.__name__ != "__main__":
            writer.out.append(b"M")
            writer.text(value.__name__)
        elif isinstance(value, Callback):
            writer.out.append(b"C" + U32.pack(value.number))
        elif isinstance(value, BaseException):
            self.exception(writer, value)
        elif isinstance(value, type) and issubclass(value, BaseException) and value.__module__ != "__main__":
            writer.out.append(b"q")
            writer.values(chain(value))
        elif plain_layout(kind) and self.shares(kind):
            if not writer.number(value):
                writer.out.append(b"V")
                writer.text(kind.__module__)
                writer.text(kind.__qualname__)
                writer.attributes(value)
        else:
            self.proxy(writer, value)

    def proxy(self, writer, value):
        handle = self.handle(value)
        new = handle not in self.described
        writer.out.append(b"P" + U32.pack(handle) + (b"1" if new else b"0"))
        if not new:
            return
        self.described.add(handle)
        kind = type(value)
        if isinstance(value, type):
            writer.out.append(b"c")
            writer.text(value.__name__)
            writer.values([base for base in value.__bases__ if base.__module__ == "__main__"])
            writer.values([name for name in dir(value) if name[:2] == "__" and own(value, name)])
            writer.value(value.__doc__ if isinstance(value.__doc__, str) else None)
            writer.values(chain(value) if issubclass(value, BaseException) else [])
            return
        if isinstance(value, types.CoroutineType):
            writer.out.append(b"a")
        elif isinstance(value, FUNCTIONS) or hasattr(value, "__wrapped__"):
            writer.out.append(b"f")
        elif hasattr(kind, "__next__"):
            writer.out.append(b"i")
        else:
            writer.out.append(b"o")
        name = getattr(value, "__name__", kind.__name__)
        writer.text(name if isinstance(name, str) else kind.__name__)
        doc = getattr(value, "__doc__", None) if isinstance(value, types.FunctionType) else None
        writer.value(doc if isinstance(doc, str) else None)
        writer.value(kind if kind.__module__ == "__main__" else None)
        writer.values([name for name in dir(kind) if name[:2] == "__" and own(kind, name)])

    def exception(self, writer, error):
        kind = type(error)
        writer.out.append(b"E")
        writer.values(chain(kind))
        writer.value(kind if kind.__module__ == "__main__" else None)
        try:
            text = str(error)
        except Exception as other:
            text = "<its __str__ raised %s>" % type(other).__name__
        writer.text(str.__getitem__(text, slice(2000)))
        args = Writer(self.other, writer.containers, self.shares)
        try:
            args.value(tuple(error.args))
        except Exception:
            args = Writer(self.other, writer.containers, self.shares)
            args.value((text,))
        writer.out += args.out
        writer.numbers, writer.containers = args.numbers, args.containers
        writer.value(innermost(error))

    # What it is asked.

    def known(self, reader, tag):
        if tag == b"P":
            return self.objects[reader.size()]
        if tag == b"C":
            return Callback.make(self, reader.size(), reader.text())
        if tag == b"I":
            return pull(self, reader.size())
        if tag in (b"J", b"q"):
            return named(reader.text(), reader.text())
        if tag == b"M":
            return module(reader.text())
        if tag == b"V":
            number = len(reader.containers)
            reader.numbered(None)
            kind = named(reader.text(), reader.text())
            item = reader.containers[number] = object.__new__(kind)
            return reader.attributes(item)
        if tag == b"u":
            kind = named(reader.text(), reader.text())
            return tuple.__new__(kind, reader.values())
        if tag == b"E":
            kind = named(reader.text(), reader.text())
            return kind(*reader.value())
        raise ValueError("an unknown tag")

    def introduce(self, reader):
        wanted, self.entry, shared = reader.values()
        self.shared = frozenset(shared)
        names = list(self.names) if wanted is None else [name for name in wanted if name in self.names]
        names = [name for name in names if type(name) is str and not (name[:2] == "__" and name[-2:] == "__")]
        self.watched = dict.fromkeys(wanted or (), (UNTOLD, None))
        writer = self.writer(b"H")
        writer.size(len(names))
        for name in names:
            writer.text(name)
            self.watch(name)
            # What the test is about runs here, whoever wrote it.
            if name == self.entry:
                writer.value(self.names[name])
            else:
                self.export(writer, self.names[name])
        self.line.send(writer)

    def watch(self, name):
        value = self.names[name]
        if isinstance(value, FUNCTIONS + (type, types.ModuleType)):
            self.watched.pop(name, None)
        else:
            self.watched[name] = value, snapshot(value)

    def news(self):
        """The names whose values are others than the judge knows."""
        return [
            name
            for name, (value, before) in self.watched.items()
            if name in self.names
            and (self.names[name] is not value or before is not None and changed(value, before))
        ]

    def export(self, writer, value):
        """A name's value. The candidate's own are described; a library's are found by the judge for itself."""
        if isinstance(value, FUNCTIONS + (type,)) and type(getattr(value, "__module__", None)) is str:
            where, name = value.__module__, getattr(value, "__qualname__", "")
            if where != "__main__" and TYPES.get(name) is not value and found(where, name) is value:
                writer.out.append(b"J")
                writer.text(where)
                writer.text(name)
                return
        writer.value(value)

    def call(self, reader):
        target, how, args, kwargs, streams = reader.values()
        before = [snapshot(item) for item in reader.containers]

        def act():
            if how == "await":
                return run(target)
            return (getattr(target, how) if how else target)(*args, **kwargs)

        self.answer(reader, before, streams, act)

    def evaluate(self, reader):
        (text,) = reader.values()
        self.answer(reader, [], None, lambda: eval(text, self.names))

    def get(self, reader):
        target, name = reader.values()
        self.answer(reader, [], None, lambda: getattr(target, name))

    def set(self, reader):
        target, name, value = reader.values()
        self.answer(reader, [], None, lambda: setattr(target, name, value))

    def answer(self, reader, before, streams, act):
        said = None
        try:
            if streams is None:
                value = act()
            else:
                value, said = redirected(streams, act)
            writer = self.writer(b"R", reader.containers)
            writer.value(value)
        except Gone:
            raise
        except BaseException as error:
            said = getattr(error, "evald_said", said)
            writer = self.writer(b"E", reader.containers)
            del writer.out[-1]
            self.exception(writer, error)
        count = len(before)
        mutated = [
            (number, item)
            for number, item in enumerate(reader.containers[:count])
            if before[number] is not None and changed(item, before[number])
        ]
        writer.size(len(mutated))
        for number, item in mutated:
            writer.size(number)
            writer.value(copied(item))
        writer.value(said)
        news = self.news() if count else []
        writer.size(len(news))
        for name in news:
            writer.text(name)
            writer.value(self.names[name])
            self.watch(name)
        self.line.send(writer)

    def call_back(self, number, how, args, kwargs):
        """Asks the judge to call what it had passed."""
        writer = self.writer(b"B")
        writer.size(number)
        for part in (how, tuple(args), kwargs):
            writer.value(part)
        self.line.send(writer)
        while True:
            reader = Reader(self.line.receive(), self.known)
            tag = bytes(reader.take(1))
            if tag == b"r":
                return reader.value()
            if tag == b"x":
                raise reader.value()
            answer = {b"C": self.call, b"G": self.get, b"S": self.set}
            answer[tag](reader)


class Callback:
    """A function of the judge's."""

    @staticmethod
    def make(candidate, number, name):
        made = candidate.__dict__.setdefault("callbacks", {})
        if number not in made:
            callback = made[number] = Callback()
            callback.number, callback.candidate, callback.__name__ = number, candidate, name
        return made[number]

    def __call__(self, *args, **kwargs):
        return self.candidate.call_back(self.number, "", args, kwargs)


def pull(candidate, number):
    """An iterator of the judge's."""
    while True:
        got = candidate.call_back(number, "next", (), {})
        if not got:
            return
        yield got[0]


def run(coroutine):
    import asyncio

    return asyncio.run(coroutine)


def found(where, name):
    value = loaded(where)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def named(where, name):
    value = module(where)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def own(kind, name):
    """Whether a class, or a base of its, defines a special method beside those that all objects have."""
    value = getattr(kind, name, None)
    return callable(value) and value is not getattr(object, name, None) and name not in NOT_CALLED


NOT_CALLED = ("__class__", "__init_subclass__", "__subclasshook__", "__new__", "__init__", "__class_getitem__")


def redirected(streams, act):
    """Runs with the judge's standard streams and random generators, and says what became of them."""
    typed, captured, seeds = streams
    kept = sys.stdin, sys.stdout, sys.stderr
    out = io.StringIO() if captured else None
    if typed is not None:
        sys.stdin = io.StringIO(typed)
    if out is not None:
        sys.stdout = out
    if seeds is not None:
        set_seeds(seeds)

    def said():
        rest = sys.stdin.read() if typed is not None and isinstance(sys.stdin, io.StringIO) else None
        return [None if out is None else out.getvalue(), rest, None if seeds is None else get_seeds()]

    try:
        value = act()
        return value, said()
    except Exception as error:
        error.evald_said = said()
        raise
    finally:
        sys.stdin, sys.stdout, sys.stderr = kept


def innermost(error):
    """The last line of the candidate on the way to an exception."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == CODE_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
