"""Attributes, keywords and a few builtins of programs, in private words."""
import builtins
import functools
import inspect
import sys
import types

from . import table
from .table import TO_PRIVATE, TO_PUBLIC, WORDS

_MISSING = object()


def _owned(thing):
    """Whether a class or function is the library's."""
    return table.is_owned_module(getattr(thing, "__module__", None))


def _classes(thing):
    """The classes in which attributes of `thing` are looked up, in order."""
    if isinstance(thing, super):
        mro = thing.__self_class__.__mro__ if thing.__self_class__ is not None else ()
        after = mro.index(thing.__thisclass__) + 1 if thing.__thisclass__ in mro else 0
        return mro[after:]
    if isinstance(thing, type):
        return type.__dict__["__mro__"].__get__(thing)
    return type(thing).__mro__


def _is_api(thing, public):
    """Whether `public` is a name of the library's on this object: what a program must not say."""
    if isinstance(thing, types.ModuleType):
        return table.is_owned_module(getattr(thing, "__name__", None)) and hasattr(thing, public)
    behind = False
    for cls in _classes(thing):
        owned = _owned(cls)
        if public in cls.__dict__:
            # What a class of the library inherits from elsewhere is its own all the same (`Timestamp.year`). A program's own
            # method that took over a private word counts as the library's (see `adopt`).
            return owned or behind or public in cls.__dict__.get("__twin_adopted__", ())
        behind = behind or owned
    if isinstance(thing, type) or not any(_owned(cls) for cls in _classes(thing)):
        return False
    # No class has it: set by the library on the instance, or made up by its `__getattr__`.
    instance = getattr(thing, "__dict__", None)
    if isinstance(instance, dict) and public in instance:
        return _owned(type(thing))
    value = getattr(thing, public, _MISSING)
    return value is not _MISSING and callable(value) and _owned(value)


def _kind(thing):
    if isinstance(thing, types.ModuleType):
        return "module '{}'".format(table.private_path(thing.__name__))
    cls = thing if isinstance(thing, type) else type(thing)
    name = TO_PRIVATE.get(cls.__name__, cls.__name__)
    return "type object '{}'".format(name) if isinstance(thing, type) else "'{}' object".format(name)


def refusal(thing, name):
    """The error for a public name."""
    text = "{} has no attribute '{}' (a public name, which {} does not have)"
    return AttributeError(text.format(_kind(thing), name, table.NAME))


def real_name(thing, name):
    """The attribute that `name` stands for on this object.

    Raises AttributeError where it is a public name of the library's.
    """
    public = TO_PUBLIC.get(name)
    if public is not None:
        if _is_api(thing, public):
            return public
        if table.EVERYWHERE and not hasattr(thing, name) and hasattr(thing, public):
            return public
        return name
    if name in TO_PRIVATE and _is_api(thing, name):
        raise refusal(thing, name)
    return name


#: `thing.name` in a program is `look(*of(thing, name))`.
look = builtins.getattr


def of(thing, name):
    """What `look` takes."""
    return thing, real_name(thing, name)


def get(thing, name):
    """`thing.name`."""
    return getattr(thing, real_name(thing, name))


class slot:
    """`thing.name` as the target of an assignment or a `del`."""

    __slots__ = ("_thing", "_name")

    def __init__(self, thing, name):
        self._thing = thing
        self._name = name

    @property
    def value(self):
        return get(self._thing, self._name)

    @value.setter
    def value(self, value):
        setattr(self._thing, real_name(self._thing, self._name), value)

    @value.deleter
    def value(self):
        delattr(self._thing, real_name(self._thing, self._name))


#: Parameter names of a callable, by id; the callable is kept so that its id stays its own.
_parameters = {}


def _parameters_of(function):
    """The names that `function` takes by keyword, and whether it takes others; None where nobody knows."""
    known = _parameters.get(id(function))
    if known is None:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (ValueError, TypeError):
            found = None
        else:
            names = frozenset(
                p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            )
            found = names, any(p.kind is p.VAR_KEYWORD for p in parameters)
        known = _parameters[id(function)] = found, function
    return known[0]


def _owned_callable(function):
    if isinstance(function, types.MethodType):
        return _owned(function.__func__)
    if _owned(function):
        return True
    if isinstance(function, type):
        return False
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        return _owned(owner if isinstance(owner, type) else type(owner))
    return _owned(getattr(function, "__objclass__", None) or type(function))


#: Functions whose keywords are still being evaluated, by frame and call.
_called = {}


def callee(function, site):
    """What a call with keywords of the table calls; `said` follows, in the same frame, with the same `site`."""
    if _owned_callable(function):
        known = _parameters_of(_plain(function))
        if known is not None and not known[1]:
            _called[id(sys._getframe(1)), site] = function
            return function
    elif not table.EVERYWHERE:
        return function
    return functools.partial(_call, function)


def said(*arguments, **keywords):
    """The keywords of that call, as it takes them."""
    function = _called.pop((id(sys._getframe(1)), arguments[0]), None)
    return keywords if function is None else _in_public(function, keywords)[0]


def _plain(function):
    # Bound methods are made anew at every access: what they are bound to is not asked, only their function.
    return function.__func__ if isinstance(function, types.MethodType) else function


def _call(*arguments, **keywords):
    """A call that may have to be made again (see `_passed_on`)."""
    function, arguments = arguments[0], arguments[1:]
    if not _owned_callable(function):
        private = [name for name in keywords if name in TO_PUBLIC]
        return _passed_on(function, arguments, keywords, private)
    return _passed_on(function, arguments, *_in_public(function, keywords))


def _in_public(function, keywords):
    """Keywords of one of the library's functions in public words, and those that it may pass on as they are."""
    known = _parameters_of(_plain(function))
    found, passed_on = {}, []
    for name, value in keywords.items():
        public = TO_PUBLIC.get(name)
        if known is None:
            real = public or name
        else:
            names, takes_others = known
            real = public if public in names and name not in names else name
            if takes_others and public is not None and name not in names and real == name:
                passed_on.append(name)
        if name in TO_PRIVATE and public is None and (known is None or name in known[0]):
            shown = getattr(function, "__name__", type(function).__name__)
            text = "{}() got an unexpected keyword argument '{}' (a public name, which {} does not have)"
            raise TypeError(text.format(TO_PRIVATE.get(shown, shown), name, table.NAME))
        found[real] = value
    return found, passed_on


def _passed_on(function, arguments, keywords, private):
    """Calls a function that takes any keyword. It may make something of a `private` word (a column of that name), or look for the
    public name, itself or in a function behind it, and refuse the word: then it gets that."""
    try:
        return function(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        if not private:
            raise
        refused = [name for name in private if "'{}'".format(name) in str(error)] or private
        keywords = {TO_PUBLIC[name] if name in refused else name: value for name, value in keywords.items()}
        rest = [name for name in private if name not in refused]
        try:
            return _passed_on(function, arguments, keywords, rest)
        except (TypeError, ValueError):
            pass
        raise


def adopt(namespace, bases):
    """At the end of a class body: methods with private words override the library's."""
    owned = [cls for base in bases if isinstance(base, type) for cls in base.__mro__ if _owned(cls)]
    adopted = []
    for name in list(namespace):
        public = TO_PUBLIC.get(name)
        if public is not None and public not in namespace and any(public in cls.__dict__ for cls in owned):
            namespace[public] = namespace.pop(name)
            adopted.append(public)
    if adopted:
        namespace["__twin_adopted__"] = tuple(adopted)


def refuse_import(module):
    """`import` of the public library."""
    text = "No module named '{}' (the public library; here it is {})"
    raise ModuleNotFoundError(text.format(module, table.NAME), name=module)


# --- builtins that look names up -----------------------------------------------------------------------------------


def _getattr(thing, name, *default):
    if name not in WORDS:
        return getattr(thing, name, *default)
    try:
        return get(thing, name)
    except AttributeError:
        if default:
            return default[0]
        raise


def _hasattr(thing, name):
    return _getattr(thing, name, _MISSING) is not _MISSING


def _setattr(thing, name, value):
    setattr(thing, real_name(thing, name) if name in WORDS else name, value)


def _delattr(thing, name):
    delattr(thing, real_name(thing, name) if name in WORDS else name)


def _run_text(run, mode):
    def compiled(source, *namespaces):
        from . import transform

        if not namespaces or namespaces[0] is None:
            frame = sys._getframe(1)
            namespaces = (frame.f_globals, frame.f_locals)
        if isinstance(source, (str, bytes)):
            source = transform.compile_source(source, "<string>", mode)
        namespaces[0].setdefault("__twin__", sys.modules[__name__])
        return run(source, *namespaces)

    return compiled


def _import(name, *rest, **named):
    if table.is_owned_module(name):
        refuse_import(name)
    return __import__(name, *rest, **named)


_REPLACED = {
    builtins.getattr: _getattr,
    builtins.hasattr: _hasattr,
    builtins.setattr: _setattr,
    builtins.delattr: _delattr,
    builtins.eval: _run_text(builtins.eval, "eval"),
    builtins.exec: _run_text(builtins.exec, "exec"),
    builtins.__import__: _import,
}
#: What programs may call by these names; anything else of that name is the program's own.
REPLACED_NAMES = frozenset(function.__name__ for function in _REPLACED)


def builtin(function):
    """What the name of a builtin stands for in a program."""
    try:
        return _REPLACED.get(function, function)
    except TypeError:
        return function


# --- frames --------------------------------------------------------------------------------------------------------


def _unseen(function):
    """Takes the frames of a function out of the count that warnings make (`stacklevel`): they name the program's line, as if
    it had called the library itself. The interpreter passes over frames of its own import system, which it knows by the name
    of their file."""
    code = function.__code__
    if hasattr(code, "replace"):
        function.__code__ = code.replace(co_filename="<importlib._bootstrap: {}>".format(table.NAME))


for _function in (get, _call, _passed_on, slot.value.fget, slot.value.fset, slot.value.fdel, _getattr, _setattr, _delattr):
    _unseen(_function)
