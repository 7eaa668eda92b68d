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


class Said(Exception):
    """What a judge has to say."""


def tell(said):
    raise Said("%s|%s" % said)
