"""The judge's end: the test runs here, in a process that the candidate cannot reach, and calls the candidate through stubs.

What a candidate sends is data. It can lie about its answers and about nothing else: values are compared here, by the types that
live here. An object of the candidate's that has no form as data is a `Remote`: its attributes and items are fetched, but it has
no say in a comparison, an arithmetic operation or a call with an expected value.
"""
import ast, dis, errno, re, unicodedata


class NeedsMore(BaseException):
    """The test needs the candidate in its own process."""


# Whose exceptions and objects have a meaning to whoever runs a test.
RUNNERS = ("unittest", "pytest", "_pytest", "doctest", "nose", "hypothesis", "mock", "bdb")
SCALARS = (type(None), bool, int, float, complex, str, bytes)


class Judge:
    def __init__(self, fd, names, text, compare):
        self.line = Line(fd)
        self.names = names
        self.words = set(re.findall(r"\w+", text))
        self.text = text
        # Whether objects of the candidate's may be compared by the candidate's own `==`.
        self.compare = compare
        self.compared = ""
        self.gone = False
        self.requests = 0
        self.needs = ""
        self.entry = ""
        self.given = self.shared = ()
        self.heard = None
        self.told = {}
        self.objects = {}  # stubs by handle
        self.handles = {}  # handles of functions and classes by id of their stub
        self.callbacks = []
        self.stdin, self.stdout = sys.stdin, sys.stdout
        self.random = "seed" in self.words or "set_state" in self.words

    # What it asks.

    def begin(self, wanted, entry, shared):
        self.entry = entry
        writer = self.writer(b"W")
        writer.values([wanted, entry, shared])
        self.send(writer)
        reader = Reader(self.receive(), self.read)
        if bytes(reader.take(1)) != b"H":
            raise ValueError("an answer of another kind")
        for _ in range(reader.size()):
            name = reader.text()
            value = self.value(reader, name == entry)
            if name == entry or self.may_give(name, value):
                self.names[name] = self.told[name] = value

    def may_give(self, name, value):
        """Whether a name that a test uses may be the candidate's: what compares may not, nor what the problem itself gives."""
        if value is MISSING or hasattr(builtins, name) or name in self.given:
            return False
        own = isinstance(value, Remote) or id(value) in self.handles
        if own and (name.lower().startswith("assert") or name in COMPARING):
            return False
        if own and name in MODULES:
            # The candidate's own of that name is no module.
            try:
                self.names[name] = module(MODULES[name])
            except ImportError:
                pass
            return False
        return True

    def give(self, prompt, wanted):
        """The functions, classes and modules that the problem's own text defines, where the test uses any."""
        code = definitions(prompt)
        self.given = set()
        if code is not None:
            # Its libraries are the judge's own, as the test's are.
            self.shared |= {name for name in packages(code) if not python_own(name)}
        if code is None or wanted is not None and not (set(wanted) - {self.entry}).intersection(code.co_names):
            return
        names = {"__name__": "__main__", "__builtins__": builtins}
        try:
            exec(code, names)
        except Exception:
            return
        for name, value in names.items():
            if name[:2] != "__" and isinstance(value, (types.FunctionType, type, types.ModuleType, types.BuiltinFunctionType)):
                self.given.add(name)
                self.names[name] = value

    def value(self, reader, own):
        at = reader.at
        if bytes(reader.take(1)) != b"J":
            reader.at = at
            return reader.value()
        where, name = reader.text(), reader.text()
        try:
            return MISSING if own or where.partition(".")[0] in RUNNERS else named(where, name)
        except Exception:
            return MISSING

    def request(self, tag, *parts):
        self.requests += 1
        writer = self.writer(tag)
        writer.values(parts)
        self.send(writer)
        return self.answer(writer)

    def answer(self, asked):
        while True:
            reader = Reader(self.receive(), self.read, asked.containers)
            tag = bytes(reader.take(1))
            if tag == b"B":
                self.call_back(reader)
                continue
            if tag not in (b"R", b"E"):
                raise ValueError("an answer of another kind")
            if tag == b"E":
                reader.at -= 1
            value = reader.value()
            for _ in range(reader.size()):
                item = asked.containers[reader.size()]
                become(item, reader.value())
            self.heard = reader.value()
            for _ in range(reader.size()):
                name, news = reader.text(), reader.value()
                if self.names.get(name, MISSING) is self.told.get(name, MISSING) and self.may_give(name, news):
                    self.names[name] = self.told[name] = news
            return tag, value

    def ask(self, tag, *parts):
        tag, value = self.request(tag, *parts)
        if tag == b"E":
            raise value
        return value

    def call(self, target, how, args, kwargs):
        streams = self.streams()
        tag, value = self.request(b"C", target, how, args, kwargs, streams)
        if streams is not None and self.heard is not None:
            self.follow(*self.heard)
        if tag == b"E":
            raise value
        return value

    def streams(self):
        """What of the interpreter's state a test has arranged for the candidate."""
        typed = sys.stdin is not self.stdin and hasattr(sys.stdin, "tell")
        captured = sys.stdout is not self.stdout
        if not (typed or captured or self.random):
            return None
        rest = None
        if typed:
            self.typed = sys.stdin.tell()
            rest = sys.stdin.read()
            self.rest = len(rest)
        return [rest, captured, get_seeds() if self.random else None]

    def follow(self, out, rest, seeds):
        if isinstance(out, str) and sys.stdout is not self.stdout:
            sys.stdout.write(out)
        if isinstance(rest, str) and sys.stdin is not self.stdin:
            sys.stdin.seek(self.typed + max(self.rest - len(rest), 0))
        if seeds is not None and self.random:
            set_seeds(seeds)

    def call_back(self, asked):
        """The candidate calls what the test has passed."""
        function = self.callbacks[asked.size()]
        how, args, kwargs = asked.value(), asked.value(), asked.value()
        try:
            if how == "next":
                value = next(function, MISSING)
                value = () if value is MISSING else (value,)
            else:
                value = function(*args, **kwargs)
            writer = self.writer(b"r")
        except (Gone, NeedsMore):
            raise
        except BaseException as error:
            value = error
            writer = self.writer(b"x")
        writer.value(value)
        self.send(writer)

    def send(self, writer):
        if self.gone:
            raise Gone
        try:
            self.line.send(writer)
        except Gone:
            self.gone = True
            raise

    def receive(self):
        try:
            return self.line.receive()
        except Gone:
            self.gone = True
            raise

    def lacks(self, what):
        self.needs = self.needs or what
        raise NeedsMore(what)

    def replaced(self, before):
        """A function of the candidate's in whose place the test has put one of its own; `None`: there is none."""
        for name, value in before.items():
            now = self.names.get(name)
            if id(value) in self.handles and isinstance(now, types.FunctionType) and now is not value:
                if now.__code__.co_filename == TEST_FILE:
                    return name
        return None

    def outcome(self, kind, text):
        if self.needs:
            return "needs", self.needs
        return ("gone", "") if self.gone else (kind, text)

    def argument(self, before):
        """What `check` gets: the candidate's, whatever the test has made of the name."""
        if not self.entry:
            return []
        if not self.entry.isidentifier():
            return [self.ask(b"E", self.entry)]
        if self.entry not in before:
            raise NameError("name %r is not defined" % self.entry)
        return [before[self.entry]]

    # What crosses beside plain data.

    def writer(self, tag):
        writer = Writer(self.write, (), self.shares)
        writer.out.append(tag)
        return writer

    def shares(self, kind):
        return kind.__module__ != "__main__" and found(kind.__module__, kind.__qualname__) is kind

    def write(self, writer, value):
        kind = type(value)
        if isinstance(value, Remote):
            writer.out.append(b"P" + U32.pack(object.__getattribute__(value, "_evald_handle")))
        elif id(value) in self.handles:
            writer.out.append(b"P" + U32.pack(self.handles[id(value)]))
        elif isinstance(value, types.ModuleType):
            writer.out.append(b"M")
            writer.text(value.__name__)
        elif isinstance(value, BaseException) and kind.__module__ != "__main__":
            writer.out.append(b"E")
            writer.text(kind.__module__)
            writer.text(kind.__qualname__)
            writer.value(tuple(value.args))
        elif getattr(value, "__module__", None) not in (None, "__main__") and library(value):
            writer.out.append(b"J")
            writer.text(value.__module__)
            writer.text(value.__qualname__)
        elif isinstance(value, types.MethodDescriptorType):
            writer.out.append(b"J")
            writer.text(value.__objclass__.__module__)
            writer.text(value.__qualname__)
        elif isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)):
            writer.out.append(b"C" + self.passed(value))
            writer.text(getattr(value, "__name__", "callback"))
        elif hasattr(kind, "__next__") and kind.__module__ in ("builtins", "itertools"):
            writer.out.append(b"I" + self.passed(value))
        elif plain_layout(kind) and self.shares(kind):
            if not writer.number(value):
                writer.out.append(b"V")
                writer.text(kind.__module__)
                writer.text(kind.__qualname__)
                writer.attributes(value)
        elif kind.__module__ == "__main__" or getattr(value, "__module__", None) == "__main__":
            self.lacks("it passes objects of its own classes (`%s`)" % getattr(value, "__name__", kind.__name__))
        else:
            self.lacks("it passes objects that do not cross as data (`%s`)" % kind.__name__)

    def passed(self, value):
        for number, known in enumerate(self.callbacks):
            if known is value:
                return U32.pack(number)
        self.callbacks.append(value)
        return U32.pack(len(self.callbacks) - 1)

    def read(self, reader, tag):
        if tag == b"P":
            return self.stub(reader)
        if tag == b"M":
            name = reader.text()
            try:
                return module(name) if name != "__main__" else MISSING
            except Exception:
                return MISSING
        if tag == b"C":
            return self.callbacks[reader.size()]
        if tag == b"E":
            return self.exception(reader)
        if tag == b"q":
            return raised_class(reader.values())
        if tag == b"u":
            where, name, items = reader.text(), reader.text(), reader.values()
            kind = named(where, name) if where.partition(".")[0] in self.shared else None
            fields = getattr(kind, "_fields", ())
            if not (isinstance(kind, type) and issubclass(kind, tuple) and len(fields) == len(items)):
                raise ValueError("a tuple of another class")
            return tuple.__new__(kind, items)
        if tag == b"V":
            where, name = reader.text(), reader.text()
            if where.partition(".")[0] not in self.shared:
                raise ValueError("an object of a class that the test does not know")
            number = len(reader.containers)
            reader.numbered(None)
            kind = named(where, name)
            if not plain_layout(kind):
                raise ValueError("an object of another layout")
            item = reader.containers[number] = object.__new__(kind)
            return reader.attributes(item)
        raise ValueError("an unknown tag")

    def exception(self, reader):
        classes, own, text = reader.values(), reader.value(), reader.text()
        args, line = reader.value(), reader.value()
        kind = own if isinstance(own, type) and issubclass(own, BaseException) else raised_class(classes)
        try:
            error = kind.__new__(kind, *args)
            error.args = tuple(args)
        except Exception:
            error = RuntimeError(text)
        error.evald_line = line if type(line) is int else None
        error.evald_text = text
        return error

    def stub(self, reader):
        handle = reader.size()
        if bytes(reader.take(1)) != b"1":
            return self.objects[handle]
        kind = bytes(reader.take(1))
        name = reader.text()
        if kind == b"c":
            return self.class_stub(handle, name, *(reader.values(), reader.values(), reader.value(), reader.values()))
        doc, own, specials = reader.value(), reader.value(), reader.values()
        if kind == b"f":
            return self.keep(handle, self.function_stub(handle, name, doc))
        if kind == b"a":
            return self.keep(handle, self.coroutine_stub(handle))
        if not isinstance(own, type) or not issubclass(own, Remote):
            own = RemoteType.made(self, name, (Remote,), specials, False)
        return self.keep(handle, own.of(handle))

    def keep(self, handle, stub):
        self.objects[handle] = stub
        if not isinstance(stub, Remote):
            self.handles[id(stub)] = handle
        return stub

    def function_stub(self, handle, name, doc):
        # A true function of the test's module, so that whoever looks for functions there finds it.
        call = caller(self, handle)
        stub = types.FunctionType(call.__code__, self.names, name, None, call.__closure__)
        stub.__doc__, stub.__module__, stub.__qualname__ = doc if isinstance(doc, str) else None, "__main__", name
        return stub

    async def run_coroutine(self, handle):
        return self.call(self.objects[handle], "await", (), {})

    def coroutine_stub(self, handle):
        return self.run_coroutine(handle)

    def class_stub(self, handle, name, bases, specials, doc, classes):
        named = name in self.words
        if classes:
            base = next((base for base in bases if isinstance(base, type)), None) or raised_class(classes[1:])
            stub = type(name, (base,), {"__module__": "__main__", "__str__": remote_text, "__doc__": doc})
        else:
            bases = tuple(base for base in bases if isinstance(base, type) and issubclass(base, Remote)) or (Remote,)
            stub = RemoteType.made(self, name, bases, specials, named)
            type.__setattr__(stub, "__doc__", doc)
            type.__setattr__(stub, "_evald_class", handle)
        return self.keep(handle, stub)


MISSING = object()
# What tells whether two values are near or the same, where a test uses it without saying whose it is.
COMPARING = {"isclose", "allclose", "array_equal", "array_equiv", "approx"}
# Modules by the names that programs give them.
MODULES = {
    "np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot", "tf": "tensorflow", "sp": "scipy", "nx": "networkx", "dt": "datetime",
}
MODULES.update(
    (name, name)
    for name in (
        "numpy pandas scipy torch sklearn sympy pytest unittest doctest math cmath random re itertools functools collections operator "
        "statistics datetime time json string decimal fractions heapq bisect os sys typing numbers io"
    ).split()
)


def definitions(prompt):
    """What a prompt imports and defines, as code. It may end within a function that is yet to be written, or within a statement."""
    lines = prompt.rstrip().splitlines()
    tries = 0
    while lines and tries < 40:
        text = "\n".join(lines)
        for end in ("", "\n    pass", "\n        pass"):
            try:
                tree = compile(text + end + "\n", "<prompt>", "exec", ast.PyCF_ONLY_AST, True)
            except (SyntaxError, ValueError):
                continue
            kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            tree.body = [node for node in tree.body if isinstance(node, kept)]
            return compile(tree, "<prompt>", "exec", 0, True)
        lines.pop()
        tries += 1
    return None


def caller(judge, handle):
    return lambda *args, **kwargs: judge.call(judge.objects[handle], "", args, kwargs)


def remote_text(error):
    return getattr(error, "evald_text", None) or Exception.__str__(error)


def raised_class(classes):
    """The nearest class of an exception that is known here."""
    for where, name in classes:
        if where.partition(".")[0] in RUNNERS:
            continue
        kind = found(where, name)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            return kind
    return Exception


def library(value):
    return isinstance(value, FUNCTIONS + (type,)) and found(value.__module__, getattr(value, "__qualname__", "")) is value


class RemoteType(type):
    """Stubs of classes."""

    @staticmethod
    def made(judge, name, bases, specials, named):
        known = set(name for name in specials if isinstance(name, str))
        methods = {"__slots__": (), "__module__": "__main__", "_evald_judge": judge, "_evald_named": named}
        for special in FETCHING + (COMPUTING if named else ()):
            if special in known:
                methods[special] = special_method(special)
        if named and "__eq__" in known:
            methods["__eq__"] = remote_equal
            methods["__hash__"] = Remote.__hash__
        methods["_evald_class"] = None
        return type.__new__(RemoteType, name, bases, methods)

    def of(cls, handle):
        item = object.__new__(cls)
        object.__setattr__(item, "_evald_handle", handle)
        return item

    def __call__(cls, *args, **kwargs):
        return cls._evald_judge.call(cls, "", args, kwargs)

    def __getattr__(cls, name):
        if name[:2] == "__" or cls._evald_class is None:
            raise AttributeError(name)
        return cls._evald_judge.ask(b"G", cls, name)

    def __iter__(cls):
        return iter(cls._evald_judge.call(cls, "__iter__", (), {}))

    def __getitem__(cls, key):
        return cls._evald_judge.call(cls, "__getitem__", (key,), {})


class Remote:
    """An object of the candidate's."""

    __slots__ = ("_evald_handle",)

    def __getattr__(self, name):
        if name[:2] == "__" and name[-2:] == "__":
            raise AttributeError(name)
        cls = type(self)
        value = cls._evald_judge.ask(b"G", self, name)
        if not cls._evald_named and callable(value) and not isinstance(value, type):
            return harmless(value, name)
        return value

    def __setattr__(self, name, value):
        type(self)._evald_judge.ask(b"S", self, name, value)

    def __hash__(self):
        return hash(object.__getattribute__(self, "_evald_handle"))

    def __repr__(self):
        return "<%s of the candidate's>" % type(self).__name__


def harmless(method, name):
    """A method of an object that the test does not know: it may give data, but say nothing of expected values."""

    def call(*args, **kwargs):
        given = args + tuple(kwargs.values())
        if not all(type(item) in SCALARS for item in given):
            raise TypeError("%s() of an object of the candidate's would compare itself" % name)
        value = method(*args, **kwargs)
        if given and type(value) is bool:
            raise TypeError("%s() of an object of the candidate's would judge itself" % name)
        return value

    return call


# What fetches data, and what computes with the object: only where the test names its class.
FETCHING = (
    "__len__", "__iter__", "__next__", "__getitem__", "__call__", "__bool__", "__int__", "__float__", "__index__", "__str__",
    "__repr__", "__enter__", "__exit__", "__reversed__",
)
COMPUTING = tuple(
    "__%s__" % name
    for name in (
        "setitem delitem contains add radd iadd sub rsub isub mul rmul imul truediv rtruediv floordiv rfloordiv mod rmod pow "
        "matmul and or xor rand ror rxor lshift rshift neg pos abs invert round trunc floor ceil lt le gt ge divmod format"
    ).split()
)


def special_method(name):
    if name == "__iter__":
        return lambda self: type(self)._evald_judge.call(self, name, (), {}) if not hasattr(type(self), "__next__") else self
    if name == "__exit__":
        # Exceptions' tracebacks do not cross.
        return lambda self, kind, error, trace: type(self)._evald_judge.call(self, name, (kind, error, None), {})
    return lambda self, *args: type(self)._evald_judge.call(self, name, args, {})


def remote_equal(self, other):
    """The candidate's own `==`, between two objects of classes that the test names."""
    if self is other:
        return True
    if not (isinstance(other, Remote) and type(other)._evald_named):
        return NotImplemented
    judge = type(self)._evald_judge
    if not judge.compare:
        judge.lacks("it compares objects of the candidate's by their own `==` (`%s`)" % type(self).__name__)
    judge.compared = "objects of the candidate's were compared by their own `==` (`%s`)" % type(self).__name__
    return judge.call(self, "__eq__", (other,), {})


def names_in(code):
    found = set(code.co_names)
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            found |= names_in(part)
    return found


def packages(code):
    """The packages that a test imports by name, but for those that are Python's own."""
    found = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME" and isinstance(instruction.argval, str):
            found.add(instruction.argval.partition(".")[0])
    for part in code.co_consts:
        if isinstance(part, types.CodeType) and "import" in repr(part.co_names):
            found |= packages(part)
    return found


def described(error):
    """Class, message and line, as people are told of it."""
    try:
        text = str(error)
    except Exception:
        text = ""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == TEST_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    said = type(error).__name__ + (": " + " ".join(text[:600].splitlines()) if text else "")
    if getattr(error, "evald_line", None) is not None:
        return "%s (line %d)" % (said, error.evald_line)
    return said if line is None else "%s (test line %d)" % (said, line)


def judged(fd, text, original, prompt, entry, spans, understood, checks_itself, compare):
    """Runs the test; what came of it, and a line about that."""
    names = vars(sys.modules["__main__"])
    # As Python reads names.
    entry = unicodedata.normalize("NFKC", entry)
    try:
        code = compile(text, TEST_FILE, "exec", dont_inherit=True)
    except BaseException as error:
        return "failed", "the test does not compile: " + described(error)
    marks = set()
    names[MARK] = marks.add
    judge = Judge(fd, names, original, compare)
    judge.shared = frozenset(name for name in packages(code) if not python_own(name))
    wanted = names_in(code)
    if wanted & {"eval", "exec", "doctest"}:
        wanted = None
    else:
        wanted = sorted(wanted | {entry.partition(".")[0].partition("(")[0]})
    deciding = None
    try:
        judge.entry = entry
        judge.give(prompt if len(prompt) < 100_000 else "", wanted)
        judge.begin(wanted, entry, sorted(judge.shared))
        deciding = Deciding(names, marks, original, spans, understood, checks_itself)
        deciding.watch()
        asked = judge.requests
        said = ended(code, names)
        if said:
            return judge.outcome("failed", described(deciding.error) if deciding.error else said)
        deciding.finish(judge.argument)
        own = judge.replaced(deciding.before) if judge.requests == asked else None
        if own is not None:
            return judge.outcome("no_test", "the test defines `%s` itself, and asks nothing of the candidate's" % own)
        return judge.outcome("passed", judge.compared)
    except NoTest as error:
        return judge.outcome("no_test", str(error))
    except BaseException as error:
        return judge.outcome(limit_of(error), described(error))


def limit_of(error):
    """What an exception that ends a test is the end of."""
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if isinstance(error, SystemExit):
        return "exited"
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return "memory"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "disk"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "processes"
    return "failed"


def ended(code, names):
    """Runs the test's text. A test may end by SystemExit of its own, as `unittest.main` does."""
    try:
        exec(code, names)
    except SystemExit as error:
        if hasattr(error, "evald_text"):
            raise
        if error.code not in (None, 0, False):
            return described(error)
    return ""


def python_own(name):
    own = getattr(sys, "stdlib_module_names", None)
    if own is not None:
        return name in own
    where = getattr(loaded(name), "__file__", None)
    return where is None or "-packages" not in where


prepare()
