0import functools
from dataclasses import dataclass, field, KW_ONLY
def _make(name):
    def made(self, other): "Made."
    made.__name__ = name
    return made
class Base:
    add = _make("add")
    half = functools.partialmethod(_make("x"), 2)
@dataclass(frozen=True)
class Row(Base):
    a: int
    _: KW_ONLY
    b: list = field(default_factory=list, init=False)
quick = functools.partial(lambda a, b=2, *c: a, 1)
Base.add.__doc__ = "Adds %(what)s." % {"what": "things"}
setattr(Base, "sub", _make("sub"))
def __getattr__(name):
    if name in {"late": "._late"}: return __import__(name)
    raise AttributeError(name)
