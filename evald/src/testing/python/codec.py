"""Values as plain data, between a candidate's process and its judge's.

A value is a tag byte and what follows it. Nothing that is read here runs code of the other side: there are no pickles, classes are
looked up among those already loaded, and objects are made without their constructors. What has no form of its own crosses as a
handle, and stays where it is.

Mutable containers are numbered in the order in which they are met, and met again they are references: so a result that is one of
the arguments comes back as that argument.
"""
import array, builtins, collections, datetime, decimal, fractions, struct, sys, types

U32 = struct.Struct("<I")
F64 = struct.Struct("<d")
C128 = struct.Struct("<dd")
DEEPEST = 200


class CannotCross(Exception):
    """A value has no form as plain data."""


def loaded(name):
    return sys.modules.get(name)


class Writer:
    """Writes values; `numbers` has the containers that both sides know already, by id."""

    def __init__(self, other, containers=(), shares=None):
        self.out = []
        self.other = other  # what to do with a value that has no form: (writer, value) -> None
        self.shares = shares  # whether the other side has a class of a library's too
        self.containers = list(containers)
        self.numbers = {id(item): number for number, item in enumerate(self.containers)}
        self.depth = 0

    def bytes(self):
        return b"".join(self.out)

    def size(self, number):
        self.out.append(U32.pack(number))

    def blob(self, data):
        self.out.append(U32.pack(len(data)))
        self.out.append(data)

    def text(self, text):
        self.blob(str.encode(text, "utf-8", "surrogatepass"))

    def number(self, item):
        """Whether a container was written before; if not, it is numbered now."""
        number = self.numbers.get(id(item))
        if number is None:
            self.numbers[id(item)] = len(self.containers)
            self.containers.append(item)
            return False
        self.out.append(b"r" + U32.pack(number))
        return True

    def value(self, value):
        form = FORMS.get(type(value))
        if form is None:
            form = form_of(value)
            if form is None:
                return self.other(self, value)
            # It goes by the type alone.
            FORMS[type(value)] = form
        self.depth += 1
        if self.depth > DEEPEST:
            raise CannotCross("a value is nested too deeply")
        form(self, value)
        self.depth -= 1

    def values(self, items):
        self.size(len(items))
        for item in items:
            self.value(item)

    def sequence(self, items):
        """Many of one type at once."""
        kinds = set(map(type, items)) if len(items) > 7 else ()
        if len(kinds) == 1:
            (kind,) = kinds
            try:
                if kind is int:
                    return self.packed(b"q", array.array("q", items).tobytes())
                if kind is float:
                    return self.packed(b"d", array.array("d", items).tobytes())
                if kind is bool:
                    return self.packed(b"?", bytes(items))
            except OverflowError:
                pass
        self.out.append(b"v")
        self.values(items)

    def packed(self, tag, data):
        self.out.append(tag)
        self.blob(data)

    def attributes(self, item):
        """An object's own attributes, where it has a plain layout."""
        own = dict(getattr(item, "__dict__", ()))
        for cls in type(item).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                name = "_" + cls.__name__.lstrip("_") + name if name[:2] == "__" and name[-2:] != "__" else name
                if name not in ("__dict__", "__weakref__") and hasattr(item, name):
                    own[name] = getattr(item, name)
        self.size(len(own))
        for name, value in own.items():
            self.text(name)
            self.value(value)


def form_of(value):
    """How a value of no exactly known type is written; `None`: not at all."""
    for name, find in LIBRARIES:
        if name in sys.modules:
            form = find(value)
            if form is not None:
                return form
    # What a subclass adds does not cross, what it overrides has no say.
    for kind in BASES:
        if isinstance(value, kind):
            return write_namedtuple if kind is tuple and hasattr(type(value), "_fields") else FORMS[kind]
    return None


BASES = (
    int, float, complex, str, bytes, bytearray, collections.OrderedDict, collections.Counter, collections.defaultdict, dict,
    tuple, list, collections.deque, set, frozenset, datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
    decimal.Decimal, fractions.Fraction,
)


def plain(tag):
    return lambda writer, value: writer.out.append(tag)


def write_int(writer, value):
    value = int.__index__(value) if type(value) is not int else value
    writer.out.append(b"i")
    writer.blob(value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True))


def write_list(writer, value):
    if not writer.number(value):
        writer.out.append(b"l")
        writer.sequence(list.__getitem__(value, slice(None)) if type(value) is not list else value)


def write_tuple(writer, value):
    writer.out.append(b"t")
    writer.sequence(tuple.__getitem__(value, slice(None)) if type(value) is not tuple else value)


def write_namedtuple(writer, value):
    if writer.shares is not None and writer.shares(type(value)):
        writer.out.append(b"u")
        writer.text(type(value).__module__)
        writer.text(type(value).__qualname__)
        return writer.values(tuple(value))
    writer.out.append(b"N")
    writer.text(type(value).__name__)
    writer.values([str(name) for name in type(value)._fields])
    writer.values(tuple(value))


def write_items(tag):
    def write(writer, value):
        if not writer.number(value):
            writer.out.append(tag)
            items = list(dict.items(value))
            writer.size(len(items))
            for key, item in items:
                writer.value(key)
                writer.value(item)

    return write


def write_defaultdict(writer, value):
    factory = value.default_factory
    name = getattr(factory, "__name__", "") if factory in (int, float, str, list, dict, set, bool) else ""
    if writer.numbers.get(id(value)) is None:
        writer.number(value)
        writer.out.append(b"F")
        writer.text(name)
        write_items(b"m")(writer, dict(value))
    else:
        writer.number(value)


def write_set(tag):
    def write(writer, value):
        if tag == b"S" or not writer.number(value):
            writer.out.append(tag)
            writer.values(list(value))

    return write


def write_parts(tag, parts):
    def write(writer, value):
        writer.out.append(tag)
        writer.values(parts(value))

    return write


def write_view(tag, parts):
    return write_parts(tag, lambda value: [tuple(value)])


def write_deque(writer, value):
    if not writer.number(value):
        writer.out.append(b"Q")
        writer.value(value.maxlen)
        writer.values(list(value))


def write_bytearray(writer, value):
    if not writer.number(value):
        writer.out.append(b"a")
        writer.blob(bytes(value))


def zone(value):
    """Time zones by name or by their distance."""
    if value is None:
        return None
    if isinstance(getattr(value, "key", None), str):
        return value.key
    if isinstance(getattr(value, "zone", None), str):
        return "pytz:" + value.zone
    if type(value) is datetime.timezone:
        return value.utcoffset(None)
    raise CannotCross("a time zone that has no name")


def zone_of(value):
    if value is None:
        return None
    if isinstance(value, datetime.timedelta):
        return datetime.timezone(value)
    kind, _, name = value.rpartition(":")
    return module("pytz").timezone(name) if kind else module("zoneinfo").ZoneInfo(name)


def write_type(writer, value):
    if TYPES.get(value.__name__) is value:
        writer.out.append(b"T")
        writer.text(value.__name__)
    else:
        writer.other(writer, value)


TYPES = {
    kind.__name__: kind
    for kind in (
        bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice, object, type,
        type(None), datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal, fractions.Fraction,
        collections.OrderedDict, collections.Counter, collections.deque, collections.defaultdict,
    )
}

FORMS = {
    type(None): plain(b"n"),
    bool: lambda writer, value: writer.out.append(b"1" if value else b"0"),
    type(...): plain(b"."),
    type(NotImplemented): plain(b"!"),
    int: write_int,
    float: lambda writer, value: writer.out.append(b"f" + F64.pack(value)),
    complex: lambda writer, value: writer.out.append(b"c" + C128.pack(value.real, value.imag)),
    str: lambda writer, value: (writer.out.append(b"s"), writer.text(value))[0],
    bytes: lambda writer, value: (writer.out.append(b"b"), writer.blob(bytes(value)))[0],
    bytearray: write_bytearray,
    memoryview: lambda writer, value: (writer.out.append(b"b"), writer.blob(value.tobytes()))[0],
    list: write_list,
    tuple: write_tuple,
    dict: write_items(b"m"),
    collections.OrderedDict: write_items(b"O"),
    collections.Counter: write_items(b"K"),
    collections.defaultdict: write_defaultdict,
    collections.deque: write_deque,
    set: write_set(b"e"),
    frozenset: write_set(b"S"),
    type({}.keys()): write_view(b"k", list),
    type({}.values()): write_view(b"w", list),
    type({}.items()): write_view(b"x", list),
    range: write_parts(b"R", lambda value: [value.start, value.stop, value.step]),
    slice: write_parts(b"L", lambda value: [value.start, value.stop, value.step]),
    datetime.date: write_parts(b"A", lambda value: [value.year, value.month, value.day]),
    datetime.datetime: write_parts(
        b"B",
        lambda v: [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, zone(v.tzinfo), v.fold],
    ),
    datetime.time: write_parts(b"G", lambda v: [v.hour, v.minute, v.second, v.microsecond, zone(v.tzinfo), v.fold]),
    datetime.timedelta: write_parts(b"H", lambda value: [value.days, value.seconds, value.microseconds]),
    datetime.timezone: write_parts(b"Z", lambda value: [value.utcoffset(None)]),
    decimal.Decimal: write_parts(b"D", lambda value: [str(value)]),
    fractions.Fraction: write_parts(b"Y", lambda value: [value.numerator, value.denominator]),
    array.array: write_parts(b"U", lambda value: [value.typecode, value.tobytes()]),
    type: write_type,
}


def write_tagged(writer, tag, parts):
    writer.out.append(b"X" + tag)
    writer.values(parts)


def path_form(value):
    if isinstance(value, loaded("pathlib").PurePath):
        return lambda writer, value: write_tagged(writer, b"pa", [str(value)])
    return None


def uuid_form(value):
    if isinstance(value, loaded("uuid").UUID):
        return lambda writer, value: write_tagged(writer, b"uu", [value.int])
    return None


def pattern_form(value):
    if isinstance(value, loaded("re").Pattern):
        return lambda writer, value: write_tagged(writer, b"re", [value.pattern, value.flags])
    return None


def zone_form(value):
    if isinstance(value, loaded("zoneinfo").ZoneInfo):
        return lambda writer, value: write_tagged(writer, b"zi", [value.key])
    return None


LIBRARIES = [("pathlib", path_form), ("uuid", uuid_form), ("re", pattern_form), ("zoneinfo", zone_form)]


class Reader:
    """Reads what a writer has written. Whatever the bytes are: values, or an error."""

    def __init__(self, data, other, containers=()):
        self.data = data
        self.at = 0
        self.other = other  # what to make of a handle: (reader, tag) -> object
        self.containers = list(containers)
        self.depth = 0

    def take(self, count):
        data = self.data[self.at : self.at + count]
        if len(data) != count:
            raise ValueError("a message is cut off")
        self.at += count
        return data

    def size(self):
        return U32.unpack(self.take(4))[0]

    def blob(self):
        return self.take(self.size())

    def text(self):
        return bytes(self.blob()).decode("utf-8", "surrogatepass")

    def numbered(self, item):
        self.containers.append(item)
        return item

    def value(self):
        tag = bytes(self.take(1))
        read = READS.get(tag)
        if read is None:
            return self.other(self, tag)
        self.depth += 1
        if self.depth > DEEPEST + 50:
            raise ValueError("a message is nested too deeply")
        value = read(self)
        self.depth -= 1
        return value

    def values(self):
        # Each value takes a byte at least.
        count = self.size()
        if count > len(self.data) - self.at:
            raise ValueError("a message is cut off")
        return [self.value() for _ in range(count)]

    def sequence(self):
        tag = bytes(self.take(1))
        if tag == b"v":
            return self.values()
        if tag == b"?":
            return [byte != 0 for byte in bytes(self.blob())]
        items = array.array({b"q": "q", b"d": "d"}[tag])
        items.frombytes(bytes(self.blob()))
        return items.tolist()

    def pairs(self, into):
        for _ in range(self.size()):
            key = self.value()
            into[key] = self.value()
        return into

    def attributes(self, item):
        for _ in range(self.size()):
            name = self.text()
            object.__setattr__(item, name, self.value())
        return item

    def known(self):
        return self.containers[self.size()]


def read_list(reader):
    item = reader.numbered([])
    item += reader.sequence()
    return item


def read_set(reader):
    item = reader.numbered(set())
    item.update(reader.values())
    return item


def read_named(reader):
    name, fields, items = reader.text(), reader.values(), reader.values()
    kind = NAMED.get((name, tuple(fields)))
    if kind is None:
        kind = NAMED[name, tuple(fields)] = collections.namedtuple(name, fields, rename=True)
    return kind(*items)


NAMED = {}


def read_defaultdict(reader):
    item = reader.numbered(collections.defaultdict(TYPES.get(reader.text())))
    # The plain dict of its items is a container as well.
    item.update(reader.value())
    return item


def read_deque(reader):
    item = reader.numbered(collections.deque(maxlen=reader.value()))
    item.extend(reader.values())
    return item


def read_parts(make):
    return lambda reader: make(*reader.values())


READS = {
    b"n": lambda reader: None,
    b"1": lambda reader: True,
    b"0": lambda reader: False,
    b".": lambda reader: ...,
    b"!": lambda reader: NotImplemented,
    b"i": lambda reader: int.from_bytes(bytes(reader.blob()), "little", signed=True),
    b"f": lambda reader: F64.unpack(reader.take(8))[0],
    b"c": lambda reader: complex(*C128.unpack(reader.take(16))),
    b"s": Reader.text,
    b"b": lambda reader: bytes(reader.blob()),
    b"a": lambda reader: reader.numbered(bytearray(reader.blob())),
    b"l": read_list,
    b"t": lambda reader: tuple(reader.sequence()),
    b"N": read_named,
    b"m": lambda reader: reader.pairs(reader.numbered({})),
    b"O": lambda reader: reader.pairs(reader.numbered(collections.OrderedDict())),
    b"K": lambda reader: reader.pairs(reader.numbered(collections.Counter())),
    b"F": read_defaultdict,
    b"Q": read_deque,
    b"e": read_set,
    b"S": lambda reader: frozenset(reader.values()),
    b"k": read_parts(lambda items: dict.fromkeys(items).keys()),
    b"w": read_parts(lambda items: dict(enumerate(items)).values()),
    b"x": read_parts(lambda items: dict(items).items()),
    b"R": read_parts(range),
    b"L": read_parts(slice),
    b"A": read_parts(datetime.date),
    b"B": read_parts(lambda *a: datetime.datetime(*a[:7], tzinfo=zone_of(a[7]), fold=a[8])),
    b"G": read_parts(lambda *a: datetime.time(*a[:4], tzinfo=zone_of(a[4]), fold=a[5])),
    b"H": read_parts(datetime.timedelta),
    b"Z": read_parts(datetime.timezone),
    b"D": read_parts(decimal.Decimal),
    b"Y": read_parts(fractions.Fraction),
    b"U": read_parts(lambda code, data: array.array(code, data)),
    b"T": lambda reader: TYPES[reader.text()],
    b"r": Reader.known,
    b"X": lambda reader: TAGGED[bytes(reader.take(2))](reader),
}


def module(name):
    return __import__(name, None, None, ["*"])


TAGGED = {
    b"pa": read_parts(lambda path: module("pathlib").Path(path)),
    b"uu": read_parts(lambda number: module("uuid").UUID(int=number)),
    b"re": read_parts(lambda pattern, flags: module("re").compile(pattern, flags)),
    b"zi": read_parts(zone_of),
}


def changed(item, before):
    """Whether a container holds other things than it did."""
    kind = type(item)
    if kind is list or kind is collections.deque:
        return len(item) != len(before) or any(a is not b for a, b in zip(item, before))
    if isinstance(item, dict):
        return len(item) != len(before) or any(
            a is not c or b is not d for (a, b), (c, d) in zip(item.items(), before.items())
        )
    if kind is set or kind is bytearray:
        return item != before
    for name, _, again in SNAPSHOTS:
        if name in sys.modules:
            said = again(item, before)
            if said is not None:
                return said
    return False


def snapshot(item):
    """What `changed` compares with."""
    kind = type(item)
    if kind is list or kind is set or kind is bytearray or isinstance(item, dict):
        return item.copy()
    if kind is collections.deque:
        return list(item)
    for name, take, _ in SNAPSHOTS:
        if name in sys.modules:
            before = take(item)
            if before is not None:
                return before
    return None


def become(item, new):
    """Makes a container hold what another one of its type does."""
    kind = type(item)
    if kind is not type(new):
        return
    if kind is list:
        item[:] = new
    elif kind is bytearray:
        item[:] = new
    elif isinstance(item, dict) or kind is set:
        item.clear()
        item.update(new)
    elif kind is collections.deque:
        item.clear()
        item.extend(new)
    else:
        for name, put in BECOMES:
            if name in sys.modules and put(item, new):
                return


SNAPSHOTS = []
BECOMES = []
COPIES = []


def object_snapshot(item):
    return dict(item.__dict__) if plain_layout(type(item)) and hasattr(item, "__dict__") else None


def object_changed(item, before):
    return changed(item.__dict__, before) if plain_layout(type(item)) and isinstance(before, dict) else None


def object_become(item, new):
    if not plain_layout(type(item)):
        return False
    item.__dict__.clear()
    item.__dict__.update(new.__dict__)
    return True


def plain_layout(kind):
    """Whether an object of a class is its attributes and nothing else: a class written in Python, of such classes."""
    return (
        isinstance(kind, type)
        and kind is not object
        and all(base is object or base.__flags__ & (1 << 9) for base in kind.__mro__)
        and kind.__new__ is object.__new__
        and not issubclass(kind, type)
    )


def copied(item):
    """Another container with the same things in it."""
    if plain_layout(type(item)):
        twin = object.__new__(type(item))
        for name, value in item.__dict__.items():
            object.__setattr__(twin, name, value)
        return twin
    for name, copy in COPIES:
        if name in sys.modules:
            twin = copy(item)
            if twin is not None:
                return twin
    return item.copy()
