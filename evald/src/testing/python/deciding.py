"""What a test says once its text has run: calls of `check`, test cases, test functions and doctests that it has only defined are
run, what ran and failed unnoticed is a failure, and a test that asserted nothing is none."""
import inspect, sys, types, unittest


class NoTest(Exception):
    """Nothing that could fail has run."""


CHECK = 0
ELSEWHERE = -1


class Deciding:
    def __init__(self, names, marks, text, spans, understood, checks_itself):
        self.names = names  # of the module that the test ran in
        self.before = dict(names)
        self.marks = marks  # the places in the test that could fail and were passed
        self.text = text
        self.spans = spans  # of test functions: their name, and their marks from the first to before the last
        self.understood = understood
        self.checks_itself = checks_itself
        self.started = set()  # ids of unittest's tests that began
        self.error = None  # the first that a runner has kept for itself
        self.examples = 0
        self.skipped = 0

    def has(self, word):
        return word in self.text

    def watch(self):
        """Sees what runners find, which a test may print instead of failing by it."""
        if self.has("unittest") or self.has("TestCase"):
            self.watch_unittest()
        if self.has("doctest"):
            self.watch_doctest()
        if self.has("pytest.main"):
            self.watch_pytest()

    def watch_unittest(self):
        result, deciding = unittest.TestResult, self

        def seen(name, keep):
            original = getattr(result, name)

            def method(self, test, *args):
                keep(test, *args)
                return original(self, test, *args)

            setattr(result, name, method)

        def failed(test, error):
            deciding.error = deciding.error or error[1]

        def unexpected(test):
            failed(test, (None, AssertionError("%s was expected to fail" % test)))

        def skipped(test, reason):
            deciding.skipped += 1

        # It would end the program, with a status that not every test looks at.
        program = unittest.main.__init__

        def quiet(self, *args, **kwargs):
            program(self, *args, **{**kwargs, "exit": False})

        unittest.main.__init__ = quiet
        seen("startTest", lambda test: deciding.started.add((type(test), getattr(test, "_testMethodName", ""))))
        seen("addFailure", failed)
        seen("addError", failed)
        seen("addUnexpectedSuccess", unexpected)
        seen("addSkip", skipped)
        original = result.addSubTest

        def sub_test(self, test, part, error):
            if error is not None:
                failed(test, error)
            return original(self, test, part, error)

        result.addSubTest = sub_test

    def watch_doctest(self):
        import doctest

        original, deciding = doctest.DocTestRunner.run, self

        def run(self, test, *args, **kwargs):
            ran = original(self, test, *args, **kwargs)
            deciding.examples += ran.attempted
            if ran.failed:
                deciding.error = deciding.error or AssertionError(
                    "%d of %d examples of %s fail" % (ran.failed, ran.attempted, test.name)
                )
            return ran

        doctest.DocTestRunner.run = run

    def watch_pytest(self):
        try:
            import pytest
        except ImportError:
            return

        def main(*args, **kwargs):
            self.run_functions()
            self.run_classes()
            return 0

        pytest.main = main

    def finish(self, entry):
        """Runs what has not run; raises what fails."""
        check = self.names.get("check")
        if callable(check) and check is not self.before.get("check") and CHECK not in self.marks:
            if not self.checks_itself:
                self.marks.add(ELSEWHERE)
            settle(check(*entry(self.before)))
        self.run_cases()
        self.run_functions()
        self.run_classes()
        if self.has(">>>") and not self.examples:
            self.run_examples()
        if self.error is not None:
            raise self.error
        if self.understood and not (self.marks - {CHECK}) and not self.examples:
            raise NoTest("the test was skipped" if self.skipped else "the test asserted nothing")

    def own(self, item):
        return getattr(item, "__module__", None) == "__main__" and self.before.get(item.__name__) is not item

    def defined(self, kind):
        return [item for item in list(self.names.values()) if isinstance(item, kind) and self.own(item)]

    def run_cases(self):
        suite = unittest.TestSuite()
        for kind in self.defined(type):
            if issubclass(kind, unittest.TestCase):
                tests = unittest.defaultTestLoader.loadTestsFromTestCase(kind)
                suite.addTests(test for test in tests if (kind, test._testMethodName) not in self.started)
        if suite.countTestCases():
            suite.run(unittest.TestResult())

    def ran(self, name):
        return any(name == other and any(first <= mark < last for mark in self.marks) for other, first, last in self.spans)

    def run_functions(self):
        for function in self.defined(types.FunctionType):
            name = function.__name__
            if name.startswith("test") and name in self.names and not self.ran(name):
                if function.__code__.co_filename == TEST_FILE or hasattr(function, "__wrapped__"):
                    self.run_function(function, function)

    def run_classes(self):
        for kind in self.defined(type):
            if not kind.__name__.startswith("Test") or issubclass(kind, unittest.TestCase) or "__init__" in kind.__dict__:
                continue
            for name in dir(kind):
                if name.startswith("test") and callable(getattr(kind, name)) and not self.ran(name):
                    item = kind()
                    for hook in ("setup_class", "setup_method"):
                        call_hook(item, hook, getattr(item, name))
                    self.run_function(getattr(kind, name), getattr(item, name))
                    call_hook(item, "teardown_method", getattr(item, name))

    def run_function(self, function, call):
        skip = skip_of(function)
        if skip:
            self.skipped += 1
            return
        fails = any(mark.name == "xfail" for mark in marks_of(function))
        for arguments in cases_of(function):
            try:
                Fixtures(self.names).run(call, arguments)
            except BaseException as error:
                if type(error).__name__ in ("SkipTest", "Skipped"):
                    self.skipped += 1
                elif not (fails and isinstance(error, Exception)):
                    raise

    def run_examples(self):
        """The examples in the test's own docstrings."""
        import doctest

        owners = [("the test", self.names.get("__doc__"))]
        owners += [(item.__name__, item.__doc__) for item in self.defined((types.FunctionType, type)) if item.__doc__]
        for name, doc in owners:
            if not isinstance(doc, str) or ">>>" not in doc or self.before.get("__doc__") == doc:
                continue
            test = doctest.DocTestParser().get_doctest(doc, self.names, name, TEST_FILE, 0)
            said = []
            runner = doctest.DocTestRunner(verbose=False)
            ran = runner.run(test, out=said.append, clear_globs=False)
            if not self.has("doctest"):
                self.examples += ran.attempted
            if ran.failed:
                raise AssertionError("%d of %d examples of %s fail" % (ran.failed, ran.attempted, name))


def settle(value):
    """Runs what a test function has left to be run."""
    if inspect.iscoroutine(value):
        import asyncio

        asyncio.run(value)
    elif inspect.isgenerator(value):
        for _ in value:
            pass


def call_hook(item, name, method):
    hook = getattr(item, name, None)
    if hook is not None:
        hook(*([method] if name != "setup_class" and takes(hook) else []))


def takes(function):
    return [name for name in inspect.signature(function).parameters]


def marks_of(function):
    marks = getattr(function, "pytestmark", [])
    return marks if isinstance(marks, list) else [marks]


def skip_of(function):
    for mark in marks_of(function):
        if mark.name == "skip" or (mark.name == "skipif" and mark.args and mark.args[0] is True):
            return True
    return getattr(function, "__unittest_skip__", False)


def cases_of(function):
    """Every choice of arguments that `pytest.mark.parametrize` gives."""
    cases = [{}]
    for mark in marks_of(function):
        if mark.name != "parametrize":
            continue
        names, values = (list(mark.args) + [mark.kwargs.get("argvalues")])[:2]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        further = []
        for value in values:
            if type(value).__name__ == "ParameterSet":
                value = value.values
            elif len(names) == 1:
                value = (value,)
            further.append(dict(zip(names, value)))
        cases = [{**case, **more} for case in cases for more in further]
    return cases


class Fixtures:
    """pytest's fixtures, as far as the test defines them itself."""

    def __init__(self, names):
        self.names = names
        self.values = {}
        self.ends = []

    def run(self, call, arguments):
        self.values.update(arguments)
        try:
            settle(call(**{name: self.value(name) for name in takes(call)}))
        finally:
            for end in reversed(self.ends):
                next(end, None)

    def value(self, name):
        if name in self.values:
            return self.values[name]
        fixture = self.names.get(name)
        function = getattr(fixture, "__pytest_wrapped__", None)
        function = getattr(function, "obj", None) or getattr(fixture, "_fixture_function", None) or getattr(fixture, "__wrapped__", None)
        if function is None:
            raise NoTest("the test takes `%s`, which is no fixture of its own" % name)
        value = function(**{name: self.value(name) for name in takes(function)})
        if inspect.isgenerator(value):
            self.ends.append(value)
            value = next(value)
        self.values[name] = value
        return value
