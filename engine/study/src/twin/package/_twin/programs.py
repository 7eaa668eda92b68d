"""Runs programs in the twin's words: whole files, and candidates with the tests that judge them."""
import builtins
import os
import sys
import types

from . import lookup, modules, table, transform


class DoesNotCompile(Exception):
    """The candidate is no Python."""


def ready(namespace):
    """Gives a program's globals what its compiled code asks for."""
    namespace["__twin__"] = lookup
    if table.EVERYWHERE:
        for public, private in table.TO_PRIVATE.items():
            if hasattr(builtins, public) and not hasattr(builtins, private):
                namespace.setdefault(private, getattr(builtins, public))


def candidate(source, namespace, public_tests):
    """Runs a candidate in `namespace`.

    With `public_tests`, every name that it defines can then also be read by its public name (`merged_df` for
    `unionerd_kf`, the library itself for its twin): the tests were not renamed.
    """
    try:
        code = transform.compile_source(source, "<candidate>")
    except (SyntaxError, ValueError) as error:
        raise DoesNotCompile("{}: {}".format(type(error).__name__, error)) from None
    ready(namespace)
    exec(code, namespace)
    if public_tests:
        publish(namespace)


def test(source, namespace):
    """Runs a test that speaks private words."""
    exec(transform.compile_source(source, "<test>"), namespace)


def publish(namespace):
    """Adds public names for what a candidate defined under private ones."""
    for name, value in list(namespace.items()):
        public = table.public_text(name)
        if public != name and public not in namespace and public not in table.TO_PUBLIC and not hasattr(builtins, public):
            if isinstance(value, modules.TwinModule):
                value = value.__dict__["__twin_of__"]
            namespace[public] = value


_USAGE = "usage: python -m {} FILE | -m MODULE | -c CODE [ARGUMENT ...]"


def main(arguments):
    """`python -m TWIN FILE [ARGUMENT ...]`, or as Python itself: `-m MODULE`, `-c CODE`."""
    if not arguments or (arguments[0] in ("-c", "-m") and len(arguments) < 2):
        print(_USAGE.format(table.NAME), file=sys.stderr)
        return 2
    if arguments[0] == "-m":
        return _run_module(arguments[1], arguments[1:])
    program = types.ModuleType("__main__")
    if arguments[0] == "-c":
        file_name, source, sys.argv = "<string>", arguments[1], ["-c"] + arguments[2:]
        sys.path[0] = ""
    else:
        file_name, sys.argv = arguments[0], arguments
        try:
            with open(file_name, "rb") as file:
                source = file.read()
        except OSError as error:
            print("{}: cannot read {}: {}".format(table.NAME, file_name, error.strerror), file=sys.stderr)
            return 2
        program.__file__ = file_name
        sys.path[0] = os.path.dirname(os.path.abspath(file_name))
    modules.follow_programs()
    sys.modules["__main__"] = program
    ready(program.__dict__)
    exec(transform.compile_source(source, file_name), program.__dict__)
    return 0


def _run_module(name, arguments):
    import runpy

    modules.follow_programs()
    sys.argv = arguments
    if name == "pytest":
        # Its own import hook would compile the tests without the table.
        options = os.environ.get("PYTEST_ADDOPTS", "")
        os.environ["PYTEST_ADDOPTS"] = (options + " --assert=plain").strip()
    namespace = {}
    ready(namespace)
    runpy.run_module(name, namespace, "__main__", alter_sys=True)
    return 0
