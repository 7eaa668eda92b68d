import sys, time


def settle():
    import builtins, gc, importlib, io, operator, posix, random, site

    def announce(what):
        try:
            posix.readlink("/.evald/" + what)
        except OSError:
            pass

    def load(name):
        try:
            importlib.import_module(name)
        except BaseException as error:
            text = f"cannot import {name}: {type(error).__name__}: {error}"
            announce("failed/" + text.encode("utf-8", "replace").hex())
            posix._exit(1)

    def throw(error):
        raise error

    def sleep(seconds, /):
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        announce(f"sleep/{int(seconds * 1e9)}")

    # In this build time.sleep always fails: the C library's poll_oneoff never gets as far as the machine's.
    sleep.__module__ = "time"
    time.sleep = sleep

    paths, sites = int(sys.argv[1]), int(sys.argv[2])
    modules = sys.argv[3:]
    sys.argv[:] = [""]
    sys.path[:0] = [f"/path/{index}" for index in range(paths)]
    sys.path += [f"/site/{index}" for index in range(sites)]
    posix.chdir("/tmp")
    # As everywhere else; this build's own is 600.
    sys.setrecursionlimit(1000)
    # What `site` gives to scripts, without its search for files.
    site.setquit()
    site.setcopyright()
    site.sethelper()
    for name in COMMON.split():
        load(name)
    for name in modules:
        load(name)
    namespace = vars(sys.modules["__main__"])
    harness = {"__builtins__": vars(builtins), "__name__": "evald"}
    exec(compile(HARNESS, "<evald>", "exec", 0, True), harness)
    first, second = KeyError("evald"), IndexError("evald")

    # Tuples of one's own: of constant ones there may be only one, which others hold too.
    def own(*items):
        return tuple(list(items))

    objects = [
        compile,
        exec,
        str,
        str.encode,
        io.FileIO("/.evald/text").readall,
        random.seed,
        operator.attrgetter("__name__"),
        operator.attrgetter("errno"),
        operator.attrgetter("tb_frame.f_code.co_filename"),
        operator.attrgetter("tb_lineno"),
        operator.attrgetter("tb_next"),
        SystemExit,
        MemoryError,
        OSError,
        RuntimeError,
        (),
        own(None, "utf-8"),
        own(None, "<candidate>", "exec", 0, True),
        own(None, "<test>", "exec", 0, True),
        own(None, "<evald>", "exec", 0, True),
        own(None, namespace),
        own(None, namespace),
        own(None, harness),
        own(None),
        own(None),
        own(None, "utf-8", "backslashreplace"),
        throw,
        own(first),
        own(second),
        first,
        second,
        None,
        bytes,
        type,
    ]
    announce("ready/" + ",".join(str(id(item)) for item in objects))
    main = vars(sys.modules["__main__"])
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    gc.collect()
    gc.freeze()
    return 1


COMMON = """
abc argparse array ast base64 bisect binascii bz2 calendar cmath codecs collections collections.abc colorsys configparser
contextlib copy csv dataclasses datetime decimal difflib enum fnmatch fractions functools glob hashlib heapq html io inspect
itertools json keyword linecache locale logging math numbers operator os pathlib pickle pprint queue random re reprlib secrets
shlex shutil statistics string struct tempfile textwrap threading time timeit tokenize traceback types typing unicodedata
unittest urllib.parse uuid warnings weakref zlib
"""
time.clock_getres(settle())
