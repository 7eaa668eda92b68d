//! What real libraries do to their interface, kind by kind: each case is a few files and what a user may call in them.

mod docs_support;

use docs_support::{gz_tar, names, read};
use inhouse_core::ApiDoc;
use inhouse_core::api::ApiKind;
use inhouse_core::docs::{self, Documentation, Loss, ReadOptions};
use inhouse_core::progress::Silent;
use tempfile::TempDir;

/// Writes files below a folder.
fn library(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// Reads what lies at `source` below a folder with these files.
fn documented(source: &str, files: &[(&str, &str)]) -> Documentation {
    let dir = library(files);
    read(&dir.path().join(source))
}

/// Finds a record by any of its names.
fn find<'a>(found: &'a Documentation, name: &str) -> Option<&'a ApiDoc> {
    found
        .apis
        .iter()
        .find(|api| api.qualified_name == name)
        .or_else(|| found.apis.iter().find(|api| api.aliases.iter().any(|alias| alias == name)))
}

/// `name(signature)` lines that a library must have, and names that it must not: those with a `-` before.
fn check(found: &Documentation, expected: &str) {
    for line in expected.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('-') {
            assert!(find(found, name).is_none(), "{name} is documented");
            continue;
        }
        let (name, signature) = line.split_at(line.find('(').unwrap_or(line.len()));
        let api = find(found, name).unwrap_or_else(|| panic!("no {name} in {:?}", names(found)));
        if !signature.is_empty() {
            assert_eq!(format!("{name}{}", api.signature), line);
        }
    }
}

fn module(text: &str) -> Documentation {
    documented("shop.py", &[("shop.py", text)])
}

#[test]
fn lists_that_are_made() {
    check(
        &module(
            "import os\n\
             def sell(item): 'Sells.'\n\
             def _audit(): 'Audits.'\n\
             __all__ = [name for name in dir() if not name.startswith('_')]\n",
        ),
        "shop.sell(item)\n-shop._audit\n-shop.os",
    );
    check(
        &module(
            "import inspect\n\
             LIMIT = 3\n\
             def sell(item): 'Sells.'\n\
             class Till: 'A till.'\n\
             __all__ = [n for n, thing in globals().items() if inspect.isclass(thing)]\n",
        ),
        "shop.Till\n-shop.sell",
    );
    check(
        &module(
            "__all__ = []\n\
             def public(thing):\n    __all__.append(thing.__name__)\n    return thing\n\
             @public\ndef sell(item): 'Sells.'\n\
             @public\nclass Till: 'A till.'\n\
             def audit(): 'Audits.'\n",
        ),
        "shop.sell(item)\nshop.Till\n-shop.audit",
    );
    check(
        &documented(
            "shop",
            &[
                ("shop/__init__.py", "from .core import *\n"),
                (
                    "shop/core.py",
                    "from . import till\nfrom .till import *\n__all__ = ['sell']\n\
                     def sell(item): 'Sells.'\n\
                     def take_over(module):\n    for name in module.__all__:\n        __all__.append(name)\n\
                     take_over(till)\n",
                ),
                ("shop/till.py", "__all__ = ['ring']\ndef ring(sum): 'Rings.'\ndef open_it(): 'Opens.'\n"),
            ],
        ),
        "shop.sell(item)\nshop.ring(sum)\n-shop.open_it",
    );
    // Beyond static evaluation: the definitions stand in, and the report says so.
    let found = module("import registry\ndef sell(item): 'Sells.'\n__all__ = registry.names(__name__)\n");
    check(&found, "shop.sell(item)");
    assert_eq!(found.losses.iter().map(|lost| lost.kind).collect::<Vec<_>>(), [Loss::UnknownAll]);
}

#[test]
fn an_empty_list_of_a_stub_promises_nothing() {
    let found = documented(
        "fast",
        &[
            ("fast/__init__.py", "__all__ = []\nfrom ._native import *\n"),
            (
                "fast/__init__.pyi",
                "__all__: list[str] = []\ndef blur(image: bytes, size: int = ...) -> bytes: ...\n",
            ),
        ],
    );
    check(&found, "fast.blur(image: bytes, size: int = ...) -> bytes");
}

#[test]
fn a_generic_class_by_another_name() {
    let found = documented(
        "fast",
        &[
            ("fast/__init__.py", "from ._native import *\n"),
            (
                "fast/__init__.pyi",
                "class Real[T]:\n    def __new__(cls, value: float = 0, /) -> Real: ...\nReal16 = Real[int]\nFlag = int\n",
            ),
        ],
    );
    check(&found, "fast.Real16(value: float = 0, /)\n-fast.Flag");
}

#[test]
fn stars_in_order_and_in_circles() {
    let found = documented(
        "shop",
        &[
            (
                "shop/__init__.py",
                "def pack(): 'Of the package.'\nfrom .a import *\nfrom .b import *\ndef wrap(x): 'Own.'\n",
            ),
            ("shop/a.py", "from .b import *\ndef pack(a): 'Of a.'\ndef only_a(): 'A.'\n"),
            (
                "shop/b.py",
                "from .a import *\ndef pack(a, b): 'Of b.'\ndef wrap(): 'Of b.'\ndef only_b(): 'B.'\n",
            ),
        ],
    );
    check(&found, "shop.pack(a, b)\nshop.wrap(x)\nshop.only_a()\nshop.only_b()");
}

#[test]
fn branches() {
    let found = module(
        "import sys, os\nimport sys as system\nfrom sys import version_info as version\nfrom typing import TYPE_CHECKING, overload\n\
         if sys.version_info < (3, 6):\n    def weigh(a): 'Old.'\n    def gone(): 'Gone.'\nelse:\n    def weigh(a, *, unit): 'New.'\n\
         if system.version_info[:2] >= (3, 0) and version.major == 3:\n    def price(new): 'New.'\nelse:\n    def price(old): 'Old.'\n\
         OLD = version < (3,)\n\
         if OLD:\n    def tax(old): 'Old.'\nelse:\n    def tax(new): 'New.'\n\
         def mix(a, b): 'Mixes.'\n\
         try:\n    from ._speed import mix\nexcept ImportError:\n    pass\n\
         try:\n    from absent import Scale\nexcept ImportError:\n    class Scale:\n        'A scale.'\n        def read(self, unit): 'Reads.'\n\
         if TYPE_CHECKING:\n    from collections import OrderedDict\n    @overload\n    def ship(a: int) -> int: ...\n    @overload\n    def ship(a: str) -> str: ...\n\
         def ship(a): 'Ships.'\n\
         if not TYPE_CHECKING:\n    def real(): 'Real.'\n\
         if os.environ.get('X'):\n    def maybe(): 'Perhaps.'\n\
         def helper(): 'Helps.'\ndel helper\n\
         if __name__ == '__main__':\n    def main(): 'Runs.'\n",
    );
    check(
        &found,
        "shop.weigh(a, *, unit)\nshop.price(new)\nshop.tax(new)\nshop.mix(a, b)\nshop.Scale.read(unit)\nshop.ship(a)\n\
         shop.real()\nshop.maybe()\n-shop.gone\n-shop.helper\n-shop.main\n-shop.OrderedDict",
    );
    let mut lost: Vec<&str> = found
        .losses
        .iter()
        .filter(|lost| lost.kind == Loss::Branch)
        .flat_map(|lost| lost.names.iter().map(String::as_str))
        .collect();
    lost.sort_unstable();
    assert_eq!(lost, ["gone", "main"]);
}

#[test]
fn the_version_of_the_interpreter_decides() {
    let dir = library(&[(
        "lib/python3.9/site-packages/shop/__init__.py",
        "import sys\nif sys.version_info >= (3, 10):\n    def sell(new): 'New.'\nelse:\n    def sell(old): 'Old.'\n",
    )]);
    let source = dir.path().join("lib/python3.9/site-packages/shop");
    check(&read(&source), "shop.sell(old)");
    let mut options = ReadOptions::default();
    options.python = Some((3, 12));
    check(&docs::read(&source, &options, &Silent).unwrap(), "shop.sell(new)");
}

#[test]
fn constructors_of_fields() {
    check(
        &module(
            "import attr, attrs\nimport dataclasses as dc\nfrom dataclasses import dataclass, field, InitVar\n\
             from functools import partial\nfrom pydantic import BaseModel, Field, PrivateAttr\nfrom typing import Annotated, ClassVar, dataclass_transform\n\
             def hidden(value):\n    return field(init=False, default=value)\n\
             @dataclass\nclass Box:\n    width: int\n    made: InitVar[str]\n    height: int = 2\n    area: int = hidden(0)\n    kind: ClassVar[str] = 'x'\n\
             @dataclass(init=False)\nclass Bare:\n    width: int\n\
             @dc.dataclass\nclass Lid(Box):\n    _: dc.KW_ONLY\n    color: str\n    tags: list = field(default_factory=list)\n\
             frozen = partial(dataclass, frozen=True, kw_only=True)\n\
             @frozen\nclass Seal:\n    wax: str\n\
             @attrs.define\nclass Crate:\n    _load: int\n    __key: str = 'k'\n    name: str = attrs.field(alias='label', default='')\n    size: int = attrs.field()\n    @size.default\n    def _size(self): return 1\n\
             @attr.s\nclass Sack:\n    _x = attr.ib()\n    y = attr.ib(factory=list)\n    z = 3\n\
             class Order(BaseModel):\n    number: int = Field(alias='no')\n    note: Annotated[str, Field(alias='remark')] = ''\n    _cache: dict = PrivateAttr(default={})\n    odd: int = Field(1, alias='not-a-name')\n\
             class Rush(Order):\n    model_config = {'extra': 'allow'}\n    by: int\n\
             @dataclass_transform(kw_only_default=True)\nclass Base:\n    'Base.'\nclass Row(Base):\n    id: int\n    text: str = ''\n\
             @dataclass_transform()\ndef record(cls):\n    return cls\n@record\nclass Point:\n    x: int\n",
        ),
        "shop.Box(width: int, made: str, height: int = 2)\n\
         shop.Bare()\n\
         shop.Lid(width: int, made: str, height: int = 2, *, color: str, tags: list = list())\n\
         shop.Seal(*, wax: str)\n\
         shop.Crate(load: int, Crate__key: str = 'k', label: str = '', size: int = ...)\n\
         shop.Sack(x, y=list())\n\
         shop.Order(*, no: int, remark: Annotated[str, Field(alias='remark')] = '', odd: int = 1)\n\
         shop.Rush(*, no: int, remark: Annotated[str, Field(alias='remark')] = '', odd: int = 1, by: int, **extra_data)\n\
         shop.Row(*, id: int, text: str = '')\n\
         shop.Point(x: int)",
    );
}

#[test]
fn constructors_that_are_put_in() {
    check(
        &module(
            "class Meta(type):\n    def __call__(cls, *, name): return super().__call__()\n\
             class Named(metaclass=Meta):\n    'Named.'\n\
             class Quiet(type):\n    def __call__(cls, *args, **kwargs): return super().__call__(*args, **kwargs)\n\
             class Single(metaclass=Quiet):\n    def __init__(self, size): pass\n\
             def sized(cls):\n    def __init__(self, size, color='red'):\n        self.size = size\n    cls.__init__ = __init__\n    return cls\n\
             @sized\nclass Hat:\n    'Hat.'\n\
             from typing import NotRequired, Required, TypedDict, Unpack\n\
             class Options(TypedDict, total=False):\n    deep: Required[bool]\n    level: int\n\
             class Full(TypedDict):\n    a: int\n    b: NotRequired[str]\n\
             def scan(path: str, **options: Unpack[Options]) -> int: 'Scans.'\n\
             from collections import namedtuple\n\
             Pair = namedtuple('Pair', ['left', 'right'], defaults=[None] * 2)\n",
        ),
        "shop.Named(*, name)\nshop.Single(size)\nshop.Hat(size, color='red')\n\
         shop.Options(*, deep: bool, level: int = ...)\nshop.Full(*, a: int, b: str = ...)\n\
         shop.scan(path: str, *, deep: bool, level: int = ...) -> int\nshop.Pair(left=None, right=None)",
    );
}

#[test]
fn callables_by_value() {
    let found = module(
        "import functools\nfrom functools import partial, partialmethod, wraps\nfrom typing import Any, Callable, Concatenate, ParamSpec, overload\n\
         P = ParamSpec('P')\n\
         def cut(cloth, length=1, *, color): 'Cuts.'\n\
         red = partial(cut, color='red')\nsilk = functools.partial(cut, 'silk')\ntwice = partial(silk, 2)\n\
         class Tailor:\n    'A tailor.'\n    def sew(self, what, loud=False): 'Sews.'\n    shirt = partialmethod(sew, 'shirt')\n    quiet = staticmethod(lambda thread: thread)\n\
             \u{20}   def __call__(self, order): 'Takes an order.'\n\
         _tailor = Tailor()\nsew = _tailor.sew\nwork = Tailor()\n\
         def maker(kind):\n    def make(size, count=1):\n        'Makes some.'\n    return make\n\
         hats = maker('hat')\n'Hats.'\ncoats = maker('coat')\ncoats.__doc__ = 'Makes coats.'\n\
         def paired(function):\n    def inner(pairs):\n        return [function(a, b) for a, b in pairs]\n    return inner\n\
         @paired\ndef add(a, b): 'Adds.'\n\
         def logged(function):\n    @wraps(function)\n    def inner(*args, **kwargs): return function(*args, **kwargs)\n    return inner\n\
         @logged\ndef double(a, b=2): 'Doubles.'\n\
         def configured(level=1):\n    def outer(function):\n        def inner(text, times=1): return function(text)\n        return inner\n    return outer\n\
         @configured(level=2)\ndef say(text): 'Says.'\n\
         def injected(function: Callable[Concatenate[int, P], Any]) -> Callable[P, Any]:\n    def inner(*args, **kwargs): return function(1, *args, **kwargs)\n    return inner\n\
         @injected\ndef save(session: int, name: str): 'Saves.'\n\
         @overload\ndef get(key: int) -> int: ...\n@overload\ndef get(key: str, deep: bool) -> str: ...\ndef get(*args: Any, **kwargs: Any) -> Any: 'Gets.'\n\
         class lazy:\n    def __init__(self, function): self.function = function\n    def __get__(self, owner, kind): return self.function(owner)\n\
         class Cached(functools.cached_property): 'Cached.'\n\
         class Suit:\n    @lazy\n    def size(self): 'Size.'\n    @Cached\n    def price(self): 'Price.'\n",
    );
    check(
        &found,
        "shop.red(cloth, length=1, *, color='red')\nshop.silk(length=1, *, color)\nshop.twice(*, color)\n\
         shop.Tailor.shirt(loud=False)\nshop.Tailor.quiet(thread)\nshop.sew(what, loud=False)\nshop.work(order)\n\
         shop.hats(size, count=1)\nshop.coats(size, count=1)\nshop.add(pairs)\nshop.double(a, b=2)\nshop.say(text, times=1)\n\
         shop.save(name: str)\nshop.get(key: str, deep: bool = ...) -> str",
    );
    assert_eq!(find(&found, "shop.hats").unwrap().description, "Hats.");
    assert_eq!(find(&found, "shop.coats").unwrap().description, "Makes coats.");
    for name in ["shop.Suit.size", "shop.Suit.price"] {
        assert_eq!(find(&found, name).unwrap().kind, Some(ApiKind::Property), "{name}");
    }
}

#[test]
fn a_decorator_may_spell_its_signature_out() {
    check(
        &module(
            "import inspect\n\
             class dispatched:\n    def __new__(cls, function): return object.__new__(cls)\n    @property\n    def __signature__(self):\n\
             \u{20}       known = inspect.signature(self.function)\n        return known.replace(parameters=[*known.parameters.values(),\n\
             \u{20}           inspect.Parameter('engine', inspect.Parameter.KEYWORD_ONLY, default=None),\n\
             \u{20}           inspect.Parameter('options', inspect.Parameter.VAR_KEYWORD)])\n\
             @dispatched\ndef walk(graph, start=0): 'Walks.'\n",
        ),
        "shop.walk(graph, start=0, *, engine=None, **options)",
    );
}

#[test]
fn packages_that_fill_themselves_on_demand() {
    let parts = [
        (
            "shop/core.py",
            "class Till:\n    'A till.'\n    def open(self, key): 'Opens.'\ndef sell(item): 'Sells.'\n",
        ),
        ("shop/extra.py", "def wrap(item, paper=None): 'Wraps.'\n"),
    ];
    let inits = [
        "import lazy_loader as lazy\n__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs={'core': ['Till', 'sell'], 'extra': ['wrap']})\n",
        "import importlib\n_where = {'Till': '.core', 'sell': 'shop.core', 'wrap': ('shop.extra', 'wrap')}\n\
         def __getattr__(name):\n    return getattr(importlib.import_module(_where[name], __name__), name)\n",
        "import sys\nfrom typing import TYPE_CHECKING\n_structure = {'core': ['Till', 'sell']}\n_structure['extra'] = []\n_structure['extra'].append('wrap')\n\
         if TYPE_CHECKING:\n    from .core import Till\nelse:\n    sys.modules[__name__] = Lazy(__name__, _structure)\n",
        "import sys\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .core import *\n    from .extra import wrap\n\
         else:\n    sys.modules[__name__] = Lazy(__name__, structure_of(__file__))\n",
    ];
    for init in inits {
        let files = [("shop/__init__.py", init), parts[0], parts[1]];
        check(
            &documented("shop", &files),
            "shop.Till.open(key)\nshop.sell(item)\nshop.wrap(item, paper=None)",
        );
    }
    let stub = [
        (
            "shop/__init__.py",
            "import lazy_loader\n__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n",
        ),
        ("shop/__init__.pyi", "from .core import Till, sell\n__all__ = ['Till', 'sell']\n"),
        parts[0],
    ];
    check(&documented("shop", &stub), "shop.Till.open(key)\nshop.sell(item)");
}

const INIT: &str = "def sell(item):\n    'Sells.'\n";

#[test]
fn layouts_that_projects_name() {
    let project = |files: &[(&str, &str)], expected: &str| {
        check(&documented(".", files), expected);
        let dir = tempfile::tempdir().unwrap();
        let inside: Vec<(String, Vec<u8>)> =
            files.iter().map(|(path, text)| (format!("shop-1.0/{path}"), text.as_bytes().to_vec())).collect();
        let sdist = dir.path().join("shop-1.0.tar.gz");
        std::fs::write(&sdist, gz_tar(&inside)).unwrap();
        check(&read(&sdist), expected);
    };
    project(
        &[
            ("setup.cfg", "[options]\npackage_dir =\n    = code\n"),
            ("code/shop/__init__.py", INIT),
            ("test/__init__.py", INIT),
            ("test/base.py", INIT),
            ("tools/gen.py", INIT),
        ],
        "shop.sell(item)\n-test.sell\n-test.base.sell\n-tools.gen.sell",
    );
    project(
        &[
            ("pyproject.toml", "[tool.maturin]\npython-source = \"py\"\n"),
            ("py/shop/__init__.py", INIT),
            ("src/lib.rs", ""),
        ],
        "shop.sell(item)\n-py.shop.sell",
    );
    project(
        &[
            ("setup.py", "setup(package_dir={'shop': 'sources'})\n"),
            ("sources/__init__.py", INIT),
            ("sources/a.py", INIT),
        ],
        "shop.sell(item)\nshop.a.sell(item)",
    );
    // Nobody says it, but there they are.
    project(
        &[("lib/shop/__init__.py", INIT), ("tests/test_shop.py", "def test_it(): pass\n")],
        "shop.sell(item)",
    );
}

#[test]
fn what_is_called_like_tests_or_copies() {
    let files = [
        (
            "shop/__init__.py",
            "from .vendor import Supplier\nfrom .tests.help import check_till\nfrom ._vendor.lib import old\n",
        ),
        ("shop/vendor/__init__.py", "class Supplier:\n    'A supplier.'\n    def pay(self, sum): 'Pays.'\n"),
        ("shop/test_bench.py", "def run(kind): 'Runs the bench.'\n"),
        ("shop/test_shop.py", "import pytest\ndef test_sell(): 'Tests.'\n"),
        ("shop/tests/__init__.py", ""),
        ("shop/tests/help.py", "def check_till(till): 'Checks.'\n"),
        ("shop/_vendor/lib.py", "def old(a): 'Old.'\n"),
    ];
    let found = documented("shop", &files);
    check(
        &found,
        "shop.Supplier.pay(sum)\nshop.test_bench.run(kind)\nshop.check_till(till)\nshop.old(a)\n-shop.test_shop\n-shop.tests.help",
    );
    let over: Vec<&str> = found
        .losses
        .iter()
        .filter(|lost| lost.kind == Loss::PassedOver)
        .map(|lost| lost.place.as_str())
        .collect();
    assert_eq!(over, ["_vendor", "tests", "test_shop.py"]);

    let dir = library(&files);
    let mut options = ReadOptions::default();
    options.include = vec!["tests".into()];
    options.exclude = vec!["vendor".into()];
    let found = docs::read(&dir.path().join("shop"), &options, &Silent).unwrap();
    check(&found, "shop.tests.help.check_till(till)\n-shop.Supplier.pay\n-shop.vendor");
}

#[test]
fn nothing_is_lost_silently() {
    let found = documented(
        "shop",
        &[
            ("shop/__init__.py", "from ._native import weigh, Scale\n"),
            ("shop/quiet.py", "__all__ = []\ndef sell(item): 'Sells.'\n"),
        ],
    );
    let lost: Vec<(Loss, &str, Vec<&str>)> = found
        .losses
        .iter()
        .map(|lost| (lost.kind, lost.place.as_str(), lost.names.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        lost,
        [
            (Loss::NoApi, "shop.quiet", vec![]),
            (Loss::UnreadImport, "shop (from shop._native)", vec!["weigh", "Scale"]),
        ]
    );
    assert!(documented("shop", &[("shop/__init__.py", INIT)]).losses.is_empty());
}

#[test]
fn stubs_beside_an_installed_package() {
    let found = documented(
        "site/shop",
        &[
            ("site/shop/__init__.py", "from ._native import weigh\n"),
            ("site/shop-stubs/__init__.pyi", "from ._native import weigh as weigh\n"),
            ("site/shop-stubs/_native.pyi", "def weigh(a: int) -> float: ...\n"),
        ],
    );
    check(&found, "shop.weigh(a: int) -> float");
}

#[test]
fn attributes_that_constructors_document() {
    let found = module(
        "class Till:\n    'A till.'\n    def __init__(self):\n        self.sum = 0\n        'The sum.'\n        self.open = False  #: Whether it is open.\n\
         \u{20}       #: Who\n        #: uses it.\n        self.user = None\n        self._key = 1  #: Private.\n        self.plain = 2\n\
         class Small(Till):\n    pass\nclass Own:\n    def __init__(self, a):\n        'Makes one.'\n",
    );
    for (name, expected) in [("sum", "The sum."), ("open", "Whether it is open."), ("user", "Who uses it.")] {
        assert_eq!(find(&found, &format!("shop.Till.{name}")).unwrap().description, expected);
    }
    check(&found, "-shop.Till._key\n-shop.Till.plain");
    assert_eq!(find(&found, "shop.Small").unwrap().description, "A till.");
    assert_eq!(find(&found, "shop.Own").unwrap().description, "Makes one.");
}

#[test]
fn constructors_that_python_gives() {
    check(
        &module(
            r#"
import decimal
import uuid

class Length(float):
    """A length."""

class Mark(uuid.UUID): ...
class Rows(list): ...
class Price(decimal.Decimal): ...
class Label(str): ...
class Fixed(float):
    def __new__(cls, value, unit): ...
"#,
        ),
        r#"
        shop.Length(x=0, /)
        shop.Mark(hex=None, bytes=None, bytes_le=None, fields=None, int=None, version=None, *, is_safe=SafeUUID.unknown)
        shop.Rows(iterable=(), /)
        shop.Price(value="0", context=None)
        shop.Label(*args, **kwargs)
        shop.Fixed(value, unit)
        "#,
    );
}

#[test]
fn types_that_only_a_stub_has_are_no_api() {
    let stub = "from shop.kinds import Shape as Shape\nclass SupportsTurn: ...\ndef turn(at: Shape) -> int: ...\ndef fast() -> None: ...\n";
    let files = |init| {
        documented(
            "shop",
            &[
                ("shop/__init__.py", init),
                ("shop/__init__.pyi", stub),
                ("shop/kinds.py", "class Shape: ...\n"),
                ("shop/work.py", "def turn(at): ...\n"),
            ],
        )
    };
    let plain = files("from shop.work import turn as turn\n");
    check(&plain, "shop.turn(at)\nshop.fast() -> None\nshop.kinds.Shape\n-shop.SupportsTurn\n-shop.Shape");
    // a module that makes its names as it runs has what its stub says
    check(&files("from shop.work import turn as turn\nfrom shop._fast import *\n"), "shop.SupportsTurn");
}

#[test]
fn constructors_that_another_library_brings() {
    let dir = library(&[
        ("shop/__init__.py", "from crates.box import Box\nclass Tin(Box):\n    \"\"\"A tin.\"\"\"\n"),
        ("other/crates/__init__.py", ""),
        ("other/crates/box.py", "class Box:\n    def __init__(self, lid, *, size=1): ...\n"),
    ]);
    let mut options = ReadOptions::default();
    options.search_paths = vec![dir.path().join("other")];
    let found = docs::read(&dir.path().join("shop"), &options, &Silent).unwrap();
    check(&found, "shop.Tin(lid, *, size=1)");
}

#[test]
fn flat_names_of_bindings() {
    let found = documented(
        "cv2",
        &[
            ("cv2/__init__.py", "from .load import *\n"),
            (
                "cv2/__init__.pyi",
                "class Finder:\n    class Options: ...\n    @classmethod\n    def create(cls, depth: int = ...) -> Finder: ...\n    def find(self, image): ...\n",
            ),
        ],
    );
    check(
        &found,
        "cv2.Finder.create(depth: int = ...) -> Finder\ncv2.Finder_create\ncv2.Finder_Options\n-cv2.Finder_find",
    );
}

#[test]
fn objects_that_functions_make() {
    check(
        &module(
            r#"
from typing import Generic, TypeVar
T = TypeVar("T")

class Switch(Generic[T]):
    """A switch."""
    def __init__(self, name): ...
    def __call__(self, on: bool = True): ...
    def flip(self, times=1): ...

def make_switch(name: str) -> Switch[bool]:
    return _prepared(name)

async def later() -> Switch: ...

light = make_switch("light")
soon = later()
"#,
        ),
        r#"
        shop.light(on: bool = True)
        shop.soon
        "#,
    );
}
