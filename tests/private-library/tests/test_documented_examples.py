"""Runs every example of every docstring, and holds the documentation to its own rules."""

import doctest
import importlib
import inspect
import unittest

import gaugewren

MODULES = ["ticks", "panes", "slate", "strand", "stages", "groupings", "gauges", "almanac", "tallies", "placard"]


def public_members():
    """Yields (dotted name, object) of every public class, function, method and property."""
    for name in MODULES:
        module = importlib.import_module(f"gaugewren.{name}")
        for export in module.__all__:
            member = getattr(module, export)
            if not (inspect.isclass(member) or inspect.isfunction(member)):
                continue
            yield f"{name}.{export}", member
            if inspect.isclass(member):
                for label, attribute in vars(member).items():
                    own = isinstance(attribute, (property, classmethod, staticmethod)) or inspect.isfunction(attribute)
                    if own and not label.startswith("_"):
                        yield f"{name}.{export}.{label}", getattr(attribute, "__func__", attribute)


class Examples(unittest.TestCase):
    def test_examples_run(self):
        for name in MODULES:
            with self.subTest(module=name):
                outcome = doctest.testmod(importlib.import_module(f"gaugewren.{name}"))
                self.assertGreater(outcome.attempted, 0)
                self.assertEqual(outcome.failed, 0)

    def test_every_public_member_is_documented(self):
        for label, member in public_members():
            with self.subTest(member=label):
                doc = inspect.getdoc(member)
                self.assertTrue(doc, "no docstring")
                self.assertTrue(doc.split("\n\n")[0].rstrip().endswith("."), "no first sentence")
                if not isinstance(member, property):
                    self.assertIn(">>>", doc, "no example")

    def test_exports_exist(self):
        for name in gaugewren.__all__:
            self.assertTrue(hasattr(gaugewren, name), name)


if __name__ == "__main__":
    unittest.main()
