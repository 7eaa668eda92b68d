//! What a test says: by what it executed, in the candidate's process or out of its reach.

use evald_proto::{Client, Job, JobResult, Trust, TrustWish, Verdict};

use crate::support::{Daemon, job, settings};

const CHECK: &str = "def check(candidate):\n    assert candidate(4) == 2\n    assert candidate(9) == 3\n";
const RIGHT: &str = "def root(x):\n    return round(x ** 0.5)\n";
const WRONG: &str = "def root(x):\n    return x\n";

fn judged(client: &mut Client, code: &str, test: &str, entry: &str, trust: TrustWish) -> JobResult {
    let job = Job { entry_point: entry.into(), trust: Some(trust), ..job(code, test) };
    client.run(job).expect("a result")
}

/// Tests in the shapes that people write, with none of which a wrong program passes.
const SHAPES: &[(&str, &str)] = &[
    ("check", CHECK),
    ("guarded", "if __name__ == '__main__':\n    assert root(4) == 2\n"),
    ("called", "def check(c):\n    assert c(4) == 2\nif __name__ == '__main__':\n    check(root)\n"),
    ("annotated", "from typing import Callable\ndef run(c):\n    assert c(4) == 2\ncheck: Callable = run\n"),
    (
        "test case",
        "import unittest\nclass R(unittest.TestCase):\n    def test(self):\n        self.assertEqual(root(4), 2)\n",
    ),
    (
        "unittest.main",
        "import unittest\nclass R(unittest.TestCase):\n    def test(self):\n        self.assertEqual(root(4), 2)\nunittest.main()\n",
    ),
    (
        "loader",
        "import sys, unittest\nclass R(unittest.TestCase):\n    def test(self):\n        self.assertEqual(root(4), 2)\nunittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__]))\n",
    ),
    ("function", "SEED = dict(a=1)\ndef test_root():\n    assert root(4) == 2\n"),
    ("class", "class TestRoot:\n    def test_four(self):\n        assert root(4) == 2\n"),
    ("doctest", "'''\n>>> root(4)\n2\n'''\n"),
    ("coroutine", "async def check(c):\n    assert c(4) == 2\n"),
    ("exception", "if root(4) != 2:\n    raise ValueError('no root')\n"),
];

#[test]
fn tests_of_every_shape_decide() {
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        // CPython for WASI has no event loop.
        let shapes = SHAPES.iter().filter(|(shape, _)| setting.tier != "T4" || *shape != "coroutine");
        for (shape, test) in shapes {
            for trust in [TrustWish::Auto, TrustWish::InProcess] {
                let right = judged(&mut client, RIGHT, test, "root", trust);
                assert_eq!(right.verdict, Verdict::Passed, "{setting:?} {shape}: {right:?}");
                let wrong = judged(&mut client, WRONG, test, "root", trust);
                assert_eq!(wrong.verdict, Verdict::Failed, "{setting:?} {shape}: {wrong:?}");
                let apart = trust == TrustWish::Auto && setting.tier != "T4";
                let want = if apart { Trust::Isolated } else { Trust::InProcess };
                assert_eq!(right.trust, want, "{setting:?} {shape}: {right:?}");
            }
        }
    }
}

#[test]
fn a_test_that_asserts_nothing_is_none() {
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for test in [
            "def check(c):\n    c(4)\n",
            "def check(c):\n    assert (c(4) == 2, 'root')\n",
            "def check(c):\n    async def go():\n        assert c(4) == 2\n    go()\n",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    assert root(4) == 2\n",
            "for x in []:\n    assert root(x) == x\n",
            "import unittest\nclass R(unittest.TestCase):\n    @unittest.skip('later')\n    def test(self):\n        self.assertEqual(root(4), 2)\n",
            "print(root(4) == 2)\n",
        ] {
            for trust in [TrustWish::Auto, TrustWish::InProcess] {
                let result = judged(&mut client, RIGHT, test, "root", trust);
                assert_eq!(result.verdict, Verdict::NoTest, "{setting:?} {test}: {result:?}");
            }
            // Clients of before know no such verdict.
            let old = client.run(Job { entry_point: "root".into(), ..job(RIGHT, test) }).expect("a result");
            assert_eq!(old.verdict, Verdict::Failed, "{setting:?} {test}: {old:?}");
        }
        // A test that puts a function of its own in the candidate's place, and asks that one.
        if setting.tier != "T4" {
            let own = "def root(x): return x ** 0.5\nassert root(4) == 2\n";
            let result = judged(&mut client, WRONG, own, "", TrustWish::Isolated);
            assert_eq!(result.verdict, Verdict::NoTest, "{setting:?}: {result:?}");
            // One that wraps the candidate's asks it.
            let wrapped = "theirs = root\ndef root(x): return theirs(x)\nassert root(4) == 2\n";
            let result = judged(&mut client, RIGHT, wrapped, "", TrustWish::Isolated);
            assert_eq!(result.verdict, Verdict::Passed, "{setting:?}: {result:?}");
        }
        // A program by itself needs no test.
        assert_eq!(client.run(job("x = 1", "")).expect("a result").verdict, Verdict::Passed);
    }
}

#[test]
fn programs_are_main() {
    let program = "
from __future__ import annotations
import dataclasses, inspect, pickle, sys
from unittest import mock
started = []
@dataclasses.dataclass
class Point:
    x: int
def helper():
    return 1
if __name__ == '__main__':
    started.append(1)
def run():
    assert sys.modules['__main__'].run is run and isinstance(__file__, str)
    assert pickle.loads(pickle.dumps(Point(3))).x == 3
    assert 'started' in inspect.getsource(run) and 'x: int' in inspect.getsource(Point)
    with mock.patch('__main__.helper', return_value=7):
        assert helper() == 7
    return started == [1]
";
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for trust in [TrustWish::Auto, TrustWish::InProcess] {
            let test = "def check(run):\n    assert run() is True\n";
            let result = judged(&mut client, program, test, "run", trust);
            assert!(result.passed, "{setting:?}: {result:?}");
        }
    }
}

#[test]
fn forgeries_are_refused_out_of_reach() {
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        let unit = "import unittest\nclass R(unittest.TestCase):\n    def test(self): self.assertEqual(root(4), 2)\n";
        for (code, test) in [
            (
                "class E:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\ndef root(x): return E()\n",
                CHECK,
            ),
            ("class E(int):\n    def __eq__(s, o): return True\ndef root(x): return E(7)\n", CHECK),
            (
                "import builtins\nbuiltins.all = lambda it: True\ndef root(x): return 0\n",
                "assert all(root(i * i) == i for i in range(3))\n",
            ),
            (
                "def all(it): return True\ndef root(x): return 0\n",
                "assert all(root(i * i) == i for i in range(3))\n",
            ),
            (
                "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef root(x): return 0\n",
                unit,
            ),
            (
                "import math\nmath.isclose = lambda *a, **k: True\ndef root(x): return 0\n",
                "import math\nassert math.isclose(root(4), 2)\n",
            ),
            (
                "import types\nmath = types.SimpleNamespace(isclose=lambda *a: True)\ndef root(x): return 0\n",
                "assert math.isclose(root(4), 2)\n",
            ),
            (
                "import gc, sys\ndef root(x):\n    f = sys._getframe()\n    while f:\n        f.f_globals.update(check=lambda c: None)\n        f = f.f_back\n    return 0\n",
                CHECK,
            ),
            (
                "class E:\n    def equals(s, o): return True\ndef root(x): return E()\n",
                "assert root(4).equals([2])\n",
            ),
            (
                "class E:\n    def __sub__(s, o): return s\n    def __abs__(s): return s\n    def __lt__(s, o): return True\ndef root(x): return E()\n",
                "assert abs(root(4) - 2) < 1e-6\n",
            ),
            ("from unittest.mock import ANY\ndef root(x): return ANY\n", CHECK),
            ("import unittest\ndef root(x): raise unittest.SkipTest('no')\n", unit),
            (
                "import os\ndef root(x):\n    for fd in range(3, 5000):\n        try: os.write(fd, b'\\x05\\0\\0\\0R1')\n        except OSError: pass\n    os._exit(0)\n",
                CHECK,
            ),
            ("def check(c): pass\ndef root(x): return 0\n", CHECK),
            ("def root(x): raise SystemExit(0)\n", CHECK),
        ] {
            let result = judged(&mut client, code, test, "root", TrustWish::Isolated);
            assert!(
                !result.passed && result.verdict != Verdict::InfraError,
                "{setting:?} {code}: {result:?}"
            );
            let result = judged(&mut client, code, test, "root", TrustWish::Auto);
            assert!(!result.passed, "{setting:?} {code}: {result:?}");
        }
    }
}

#[test]
fn what_tests_and_candidates_pass_each_other_arrives() {
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for (code, test) in [
            (
                "def f(x): return x\n",
                "import datetime as d, decimal, fractions\nfor x in (None, 1, 1.5, 2 ** 90, 'é', b'\\0', [1, (2, {'a': {3}})], d.date(2020, 1, 2), decimal.Decimal('1.50'), fractions.Fraction(1, 3), float('inf'), frozenset({1}), range(3), ...):\n    assert f(x) == x and type(f(x)) is type(x)\n",
            ),
            (
                "def f(x): x.sort(); x.append(9); return x\n",
                "a = [3, 1]\nb = f(a)\nassert a == [1, 3, 9] and b is a\n",
            ),
            (
                "def f(n):\n    for i in range(n): yield i * i\n",
                "assert list(f(4)) == [0, 1, 4, 9]\nassert next(f(1)) == 0\n",
            ),
            (
                "def f(g, x): return [g(i) for i in x]\n",
                "assert f(lambda i: i + 1, [1, 2]) == [2, 3]\nassert f(len, ['a']) == [1]\nassert list(f(str, iter([1]))) == ['1']\n",
            ),
            (
                "def f(x):\n    if x < 0: raise ValueError('below zero')\n    return x\n",
                "try:\n    f(-1)\nexcept ValueError as error:\n    assert str(error) == 'below zero'\nelse:\n    raise AssertionError\n",
            ),
            (
                "class Own(KeyError): pass\ndef f(): raise Own('k')\n",
                "try:\n    f()\n    assert False\nexcept Own as error:\n    assert isinstance(error, KeyError) and error.args == ('k',)\n",
            ),
            (
                "def f(): print('hello'); return input()\n",
                "import io, sys\nfrom contextlib import redirect_stdout\nsys.stdin = io.StringIO('typed\\nmore\\n')\nout = io.StringIO()\nwith redirect_stdout(out):\n    got = f()\nassert (got, out.getvalue(), sys.stdin.read()) == ('typed', 'hello\\n', 'more\\n')\n",
            ),
            (
                "import random\ndef f(): return random.random()\n",
                "import random\nrandom.seed(5)\nwant = random.random()\nrandom.seed(5)\nassert f() == want\n",
            ),
            (
                "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)\n",
                "s = Stack()\ns.push('a')\nassert len(s) == 1 and isinstance(s, Stack)\nassert s.items == ['a'] and s.pop() == 'a'\n",
            ),
            ("count = 0\ndef f():\n    global count\n    count += 1\n", "f()\nf()\nassert count == 2\n"),
            ("async def f(x): return x * 2\n", "import asyncio\nassert asyncio.run(f(4)) == 8\n"),
            (
                "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)\n",
                "assert f() == (1, 2) and f().y == 2\n",
            ),
        ] {
            let result = judged(&mut client, code, test, "", TrustWish::Isolated);
            assert!(result.passed && result.trust == Trust::Isolated, "{setting:?} {test}: {result:?}");
        }
    }
}

#[test]
fn what_cannot_be_taken_apart_says_why() {
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for (test, why) in [
            (
                "from unittest import mock\nwith mock.patch('__main__.root', lambda x: 2):\n    assert root(4) == 2\n",
                "replaces parts",
            ),
            (
                "class Four:\n    def __pow__(self, e): return 2\nassert root(Four()) == 2\n",
                "its own classes",
            ),
        ] {
            let near = judged(&mut client, RIGHT, test, "root", TrustWish::Auto);
            assert!(near.passed && near.trust == Trust::InProcess, "{near:?}");
            assert!(near.trust_reason.contains(why), "{near:?}");
            let far = judged(&mut client, RIGHT, test, "root", TrustWish::Isolated);
            assert!(far.verdict == Verdict::NoTest && far.detail.contains(why), "{far:?}");
        }
    }
}

#[test]
fn limits_hold_on_both_sides_of_a_test() {
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for (code, test, want) in [
            ("def root(x):\n    while True: pass\n", CHECK, Verdict::TimeoutCpu),
            ("import time\ndef root(x): time.sleep(60)\n", CHECK, Verdict::TimeoutWall),
            ("def root(x):\n    return [bytearray(1 << 24) for _ in range(999)]\n", CHECK, Verdict::Failed),
            ("import os\ndef root(x): os._exit(3)\n", CHECK, Verdict::NoVerdict),
            ("def root(x):\n    while True: print('x' * 9999)\n", CHECK, Verdict::OutputLimit),
            ("def root(x): return root(\n", CHECK, Verdict::CompileError),
            (RIGHT, "assert root(4) == 2\nwhile True: pass\n", Verdict::TimeoutCpu),
        ] {
            let result = judged(&mut client, code, test, "root", TrustWish::Isolated);
            // Memory errors may be told by either side.
            let oom = want == Verdict::Failed && result.verdict == Verdict::Oom;
            assert!(result.verdict == want || oom, "{setting:?} {code}: {result:?}");
        }
        // The slots are as good as before.
        assert!(judged(&mut client, RIGHT, CHECK, "root", TrustWish::Isolated).passed);
    }
}
