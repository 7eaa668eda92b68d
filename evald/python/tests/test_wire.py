"""Jobs, limits and results as they are on the wire."""

import json
import unittest

from evald import Job, Limits, Program, Result
from evald.wire import MAX_LINE_BYTES, Unsendable, encode


class LimitsTest(unittest.TestCase):
    def test_forms_that_mean_the_same(self):
        want = {"cpu_ms": 1500, "wall_ms": 90_000, "memory_bytes": 2 << 30, "output_bytes": 64 << 10, "processes": 9}
        for form in (
            "cpu=1.5s, wall=1.5m,memory=2GiB,output=64k,threads=9",
            {"cpu": 1.5, "wall": 90, "memory": "2GiB", "output": 65536, "processes": 9},
            Limits(cpu="1500ms", wall=90, memory=2 << 30, output="64KiB", processes=9),
        ):
            self.assertEqual(Limits.of(form).to_wire(), want, form)
        self.assertEqual(Limits.of(None).to_wire(), {})
        self.assertEqual(Limits(allow_processes=False).to_wire(), {"allow_processes": False})

    def test_what_is_no_limit_is_named_with_what_would_be(self):
        for form, word in [
            ("cpu", "NAME=VALUE"),
            ("ram=1g", "memory"),
            ({"ram": 1}, "memory"),
            ("cpu=soon", "10s"),
            ({"cpu": float("nan")}, "cpu"),
            ({"cpu": True}, "cpu"),
            ({"memory": -1}, "512MiB"),
            ("files=1.5x", "files"),
            ("cpu=1,cpu=2", "twice"),
            ({"allow_processes": "yes"}, "True"),
        ]:
            with self.assertRaises(ValueError, msg=form) as caught:
                Limits.of(form)
            self.assertIn(word, str(caught.exception))


class JobTest(unittest.TestCase):
    def test_a_job_is_a_line(self):
        job = Job("x = 'ä\u2028'", "assert x", "x", limits={"cpu": 2}, program=None, id="mine")
        line = encode(job.to_wire("7"))
        self.assertEqual(line.count(b"\n"), 1)
        sent = json.loads(line)
        self.assertEqual((sent["op"], sent["id"], sent["code"], sent["limits"]), ("run", "7", job.code, {"cpu_ms": 2000}))
        self.assertNotIn("program", sent)

    def test_files_of_a_program_are_base64(self):
        sent = Job("", program=Program("in", {"a": b"\0\xff"}, ("b",))).to_wire("1")["program"]
        self.assertEqual(sent, {"stdin": "in", "files": {"a": "AP8="}, "fetch": ["b"]})

    def test_fields_of_the_wrong_kind_are_named(self):
        with self.assertRaisesRegex(TypeError, "'mine'.*code is bytes"):
            Job(b"x", id="mine").to_wire("1")
        with self.assertRaisesRegex(ValueError, "sometimes.*isolated"):
            Job("x", trust="sometimes").to_wire("1")

    def test_what_no_line_can_hold(self):
        with self.assertRaisesRegex(Unsendable, r"U\+DC80"):
            encode(Job("'\udc80'").to_wire("1"))
        with self.assertRaisesRegex(Unsendable, str(MAX_LINE_BYTES)):
            encode(Job("#" * MAX_LINE_BYTES).to_wire("1"))


class ResultTest(unittest.TestCase):
    def test_a_reply_of_a_newer_daemon(self):
        reply = {"reply": "verdict", "id": "9", "verdict": "of_the_future", "passed": False, "trust": "outside", "news": 1,
                 "files": {"a": "AP8=", "b": None}}  # fmt: skip
        result = Result.from_wire(reply, "mine", 4)
        self.assertEqual((result.id, result.index, result.verdict), ("mine", 4, "of_the_future"))
        self.assertEqual(result.files, {"a": b"\0\xff", "b": None})
