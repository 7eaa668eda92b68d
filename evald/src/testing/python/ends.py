"""What the daemon calls."""
import builtins, linecache, sys


def serve(fd):
    Candidate(fd, vars(sys.modules["__main__"])).serve()


def spans_of(text):
    """`name first last` in lines."""
    spans = [line.split() for line in text.splitlines()]
    return [(name, int(first), int(last)) for name, first, last in spans]


def judge(fd, text, original, prompt, entry, spans, understood, checks_itself, compare):
    return judged(fd, text, original, prompt, entry, spans_of(spans), understood, checks_itself, compare)


def watched(text, spans, understood, checks_itself):
    """In the candidate's own process: before the test's text runs."""
    names = vars(sys.modules["__main__"])
    marks = set()
    names[MARK] = marks.add
    deciding = Deciding(names, marks, text, spans_of(spans), understood, checks_itself)
    deciding.watch()
    return deciding


def decided(deciding, entry):
    """In the candidate's own process: after the test's text has run."""
    deciding.finish(lambda before: [eval(entry, before)] if entry else [])


def begin(code, file):
    """A program's module, as Python makes one of a script."""
    main = sys.modules["__main__"]
    names = vars(main)
    names.clear()
    names.update(
        __name__="__main__", __doc__=None, __package__=None, __loader__=None, __spec__=None, __file__=file,
        __builtins__=builtins,
    )
    linecache.cache[file] = (len(code), None, code.splitlines(True), file)
    return names


def program(source):
    """Runs a program as `python file.py` does, with what Python does at a program's end."""
    import atexit, threading

    names = begin(source, CODE_FILE)
    code = compile(source, CODE_FILE, "exec", dont_inherit=True)
    try:
        exec(code, names)
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        raise
    except BaseException as error:
        # Not this function's own frame.
        error.__traceback__ = error.__traceback__.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        raise
    finally:
        for end in (getattr(threading, "_shutdown", None), getattr(atexit, "_run_exitfuncs", None)):
            try:
                if end is not None:
                    end()
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)
        flush()


def flush():
    """Writes what the standard streams hold back."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


class Said(Exception):
    """What a judge has to say."""


def tell(said):
    raise Said("%s|%s" % said)


REHEARSED = "def f(x):\n    return x\n"
# Values as they often cross, by the library that they need.
REHEARSALS = (
    ("", "assert f(1) == 1 and f([1, 'a', (2.5, None)]) == [1, 'a', (2.5, None)] and f({'a': {1}}) == {'a': {1}}\n"),
    ("numpy", "import numpy as np\nassert (f(np.arange(3)) == np.arange(3)).all() and f(np.float64(1)) == 1\n"),
    (
        "pandas",
        "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']}, index=['r', 's'])\n"
        "assert f(df).equals(df) and f(df.a).equals(df.a)\n",
    ),
)


def rehearse(candidates, judges, as_judge):
    """Runs a candidate and its judge on a line of these two descriptors, one of the two in a child: what Python and libraries
    make when code first runs is then there before there are samples, and no sample copies the pages that it takes."""
    import posix

    test = "".join(text for library, text in REHEARSALS if not library or loaded(library))
    child = posix.fork()
    judging = as_judge == (child != 0)
    posix.close(candidates if judging else judges)
    try:
        if judging:
            begin(test, TEST_FILE)
            judge(judges, test.replace("assert", MARK + "(1);assert"), test, "", "", "", True, False, True)
        else:
            names = begin(REHEARSED, CODE_FILE)
            exec(compile(REHEARSED, CODE_FILE, "exec"), names)
            serve(candidates)
    except BaseException:
        # A library that cannot do this: its samples will say so where they need it.
        pass
    if child == 0:
        posix._exit(0)
    posix.close(judges if judging else candidates)
    posix.waitpid(child, 0)
    for file in (CODE_FILE, TEST_FILE):
        linecache.cache.pop(file, None)
