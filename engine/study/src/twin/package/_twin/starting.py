"""Programs that were started without the twin: `python program.py`.

Python compiled such a program before it imported anything. At its first import of the twin, the statement that does so and all
that follow are compiled again, through the table, and run in its place; what ran before is not repeated.
"""
import ast
import os
import sys

from . import modules, programs, table, transform

_HOW = "start it with `python -m {} FILE` (or -m MODULE, -c CODE)"


def take_over():
    """Goes on with the running program through the table. Returns where there is no program, or it is compiled so already."""
    main = vars(sys.modules.get("__main__", sys))
    frame, waiting = sys._getframe(), []
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            if frame.f_globals is main:
                break
            names = frame.f_globals
            ours = str(names.get("__name__")).split(".", 1)[0] == table.NAME
            if not ours and transform.HANDLE not in names and _is_program(frame.f_code.co_filename):
                waiting.append(frame)
        frame = frame.f_back
    source = None
    if frame is not None and transform.HANDLE not in main:
        source = _source(frame.f_code.co_filename)
        if source is None and (_is_interactive() or frame.f_code.co_filename == "<stdin>"):
            _refuse("a session, or a program that is read from standard input,")
    if source is None:
        if waiting:
            _refuse(waiting[0].f_code.co_filename)
        return
    modules.follow_programs()
    # What imports the twin on the program's behalf is imported again, through the table.
    for half in waiting:
        sys.modules.pop(half.f_globals.get("__name__"), None)
    raise SystemExit(_go_on(frame, source))


def _is_program(file_name):
    return os.path.isfile(file_name) and not modules.is_installed(os.path.abspath(file_name))


def _is_interactive():
    return hasattr(sys, "ps1") or "IPython" in sys.modules or bool(sys.flags.interactive)


def _source(file_name):
    """The text of the running program; None where there is none that is the user's."""
    if _is_program(file_name):
        try:
            with open(file_name, "rb") as file:
                return file.read()
        except OSError:
            return None
    # `python -c`: the text stands among the arguments, from Python 3.10 on.
    words = getattr(sys, "orig_argv", [])
    if file_name == "<string>" and "-c" in words[:-1]:
        text = words[words.index("-c") + 1]
        return text if table.NAME in text else None
    return None


def _refuse(what):
    text = "{} is not compiled through {}, so it would not be held to its names: " + _HOW
    raise ImportError(text.format(what, table.NAME, table.NAME), name=table.NAME)


def _go_on(frame, source):
    file_name, line = frame.f_code.co_filename, frame.f_lineno
    body = transform.parse(source, file_name).body
    at = next((i for i, node in enumerate(body) if node.lineno <= line <= (node.end_lineno or line)), len(body))
    # Functions from before are called later, so they are made again; so are the switches of `from __future__`.
    again = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    before = [n for n in body[:at] if isinstance(n, again) or getattr(n, "module", None) == "__future__"]
    tree = ast.Module(body=before + body[at:], type_ignores=[])
    namespace = frame.f_globals
    programs.ready(namespace)
    try:
        exec(transform.compile_tree(tree, file_name), namespace)
    except SystemExit as error:
        return error.code
    except BaseException as error:
        # As Python would report it, without the frames of this function and of the interrupted program.
        trace = error.__traceback__.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0
