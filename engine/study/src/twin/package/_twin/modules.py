"""The twin's modules: views of the library's, in private words; and the loader of programs that import the twin."""
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import sysconfig
import types

from . import lookup, table


class TwinModule(types.ModuleType):
    """A module of the library under its private words. What it hands out is the library's own."""

    def __getattr__(self, name):
        if name == "__wrapped__":
            raise AttributeError(name)
        real = self.__dict__["__twin_of__"]
        if name == "__all__":
            return dir(self)
        public = table.TO_PUBLIC.get(name)
        if public is not None and hasattr(real, public):
            return _view(getattr(real, public))
        if name in table.TO_PRIVATE and hasattr(real, name):
            raise lookup.refusal(real, name)
        try:
            return _view(getattr(real, name))
        except AttributeError:
            pass
        if public is not None and table.EVERYWHERE and hasattr(real, public):
            return _view(getattr(real, public))
        raise AttributeError("module '{}' has no attribute '{}'".format(self.__name__, name))

    def __dir__(self):
        real = self.__dict__["__twin_of__"]
        names = getattr(real, "__all__", None) or [name for name in dir(real) if not name.startswith("_")]
        return sorted(table.TO_PRIVATE.get(name, name) for name in names)


def _view(value):
    """Modules of the library as their twins; everything else as it is."""
    if isinstance(value, types.ModuleType) and not isinstance(value, TwinModule):
        if table.is_owned_module(value.__name__) and sys.modules.get(value.__name__) is value:
            return _twin_of(value)
    return value


def _twin_of(real):
    name = table.private_path(real.__name__)
    twin = sys.modules.get(name)
    if not isinstance(twin, TwinModule):
        twin = TwinModule(name)
        twin.__dict__["__twin_of__"] = real
        twin.__path__ = []
        sys.modules[name] = twin
    return twin


class _Loader(importlib.abc.Loader):
    def __init__(self, public):
        self._public = public

    def create_module(self, spec):
        return _twin_of(importlib.import_module(self._public))

    def exec_module(self, module):
        pass


class _ProgramLoader(importlib.machinery.SourceFileLoader):
    """Modules outside of the interpreter's installation are programs: they speak private words too."""

    def source_to_code(self, data, path, **_):
        from . import transform

        return transform.compile_source(data, path)

    def get_code(self, fullname):
        # Never from or to a .pyc: those are not transformed, or not by this table.
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module):
        module.__dict__["__twin__"] = lookup
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.startswith(table.NAME + ".") and not fullname.startswith(table.NAME + "._twin"):
            public = table.public_path(fullname)
            if public is None:
                return None
            try:
                importlib.import_module(public)
            except ModuleNotFoundError as error:
                if error.name and public.startswith(error.name):
                    return None
                raise
            return importlib.machinery.ModuleSpec(fullname, _Loader(public), is_package=True)
        return None


class _ProgramFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".", 1)[0] == table.NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not importlib.machinery.SourceFileLoader:
            return None
        if is_installed(spec.origin):
            return None
        spec.loader = _ProgramLoader(spec.loader.name, spec.loader.path)
        return spec


_folders = []


def _installed():
    if not _folders:
        keys = ("stdlib", "platstdlib", "purelib", "platlib")
        found = {sysconfig.get_paths().get(key) for key in keys}
        found |= {entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))}
        _folders.extend(folder.rstrip("/") + "/" for folder in found if folder)
    return _folders


def is_installed(file_name):
    """Whether a file is one of the interpreter's installation: no program of the user's."""
    return any(file_name.startswith(folder) for folder in _installed())


def begin(name):
    """Turns the package that imports this into the twin of the library, and has the program that imports it compiled
    through the table."""
    real = importlib.import_module(table.LIBRARY)
    package = sys.modules[name]
    package.__dict__["__twin_of__"] = real
    package.__class__ = TwinModule
    for leftover in ("_modules",):
        package.__dict__.pop(leftover, None)
    sys.meta_path.insert(0, _Finder())
    from . import starting

    starting.take_over()


def follow_programs():
    """From now on, modules outside of the installation are compiled through the table."""
    if not any(isinstance(finder, _ProgramFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ProgramFinder())
