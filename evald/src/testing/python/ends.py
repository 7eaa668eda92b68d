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
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass


class Said(Exception):
    """What a judge has to say."""


def tell(said):
    raise Said("%s|%s" % said)
