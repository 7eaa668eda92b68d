"""The client with a real daemon: verdicts, pipelining, and what goes wrong."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest

import evald

ENDLESS = "while True: pass"


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def wait_until(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what)
        time.sleep(0.02)


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = evald.Client(slots=2)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()

    def run_one(self, *args, **kwargs):
        return self.client.run(evald.Job(*args, **kwargs))

    def test_a_daemon_says_what_it_is(self):
        info = self.client.info
        self.assertRegex(info.tier, "^T[0-4]$")
        self.assertEqual((info.slots, info.envs), (2, ("python",)))
        self.assertIn("evald_info", self.client.metrics())

    def test_verdicts(self):
        check = "def check(candidate):\n    assert candidate(4) == 8\n"
        for code, test, kwargs, verdict in [
            ("def double(x): return 2 * x", check, {"entry_point": "double"}, "passed"),
            ("def double(x): return x", check, {"entry_point": "double"}, "failed"),
            ("def double(x) return x", check, {"entry_point": "double"}, "compile_error"),
            ("x = 1", "y = x", {}, "no_test"),
            (ENDLESS, "assert True", {"limits": "cpu=200ms"}, "timeout_cpu"),
            ("import os; os._exit(0)", "assert True", {}, "no_verdict"),
            ("x = bytearray(1 << 30)", "assert x", {"limits": "memory=128MiB"}, "oom"),
            ("x = '\ud800'", "assert True", {}, "compile_error"),
        ]:
            with self.subTest(code=code):
                result = self.run_one(code, test, **kwargs)
                self.assertEqual(result.verdict, verdict, result)
                self.assertEqual(result.passed, verdict == "passed")

    def test_trust_is_asked_and_said(self):
        job = ("def double(x): return 2 * x", "assert double(4) == 8")
        self.assertEqual(self.run_one(*job, trust="isolated").trust, "isolated")
        self.assertEqual(self.run_one(*job, trust="in_process").trust, "in_process")

    def test_samples_run_in_the_calling_python(self):
        result = self.client.run(evald.Job("import sys; print(sys.version_info[:2], flush=True)", "x = 1\nassert x", keep_output=True))
        self.assertEqual(result.output.strip(), str(sys.version_info[:2]))

    def test_programs(self):
        result = evald.run_program(
            "import sys\nopen('out', 'wb').write(open('in', 'rb').read()[::-1])\nprint(input())\nsys.exit(3)",
            stdin="hello", files={"in": b"\0ab"}, fetch=["out", "none"], client=self.client,
        )  # fmt: skip
        self.assertEqual((result.output, result.exit_status), ("hello\n", 3), result)
        self.assertIsNone(result.files["none"])

    def test_many_jobs_come_back_each_once_and_are_taken_as_there_is_room(self):
        taken = []

        def jobs():
            for number in range(60):
                taken.append(number)
                yield evald.Job(f"x = {number}", "assert x % 3", id=f"job {number}")

        seen = []
        for result in self.client.run_all(jobs(), in_flight=5):
            seen.append(result.index)
            self.assertEqual(result.id, f"job {result.index}")
            self.assertEqual(result.passed, result.index % 3 != 0)
            self.assertLessEqual(len(taken), len(seen) + 6)
        self.assertEqual(sorted(seen), list(range(60)))

    def test_a_job_that_cannot_be_sent_fails_alone(self):
        jobs = [evald.Job("x = 1", "assert x"), evald.Job("#" * (17 << 20)), evald.Job("x = 2", "assert x")]
        verdicts = {result.index: result.verdict for result in self.client.run_all(jobs)}
        self.assertEqual(verdicts, {0: "passed", 1: "compile_error", 2: "passed"})

    def test_threads_share_a_client(self):
        passed = []

        def work(number):
            jobs = [evald.Job(f"x = {number}", f"assert x == {number}") for _ in range(10)]
            passed.append(sum(result.passed for result in self.client.run_all(jobs)))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(passed, [10] * 6)

    def test_a_refused_job_is_named_and_the_client_goes_on(self):
        with self.assertRaises(evald.Refused) as caught:
            self.run_one("x = 1", env="elsewhere", id="mine")
        self.assertEqual((caught.exception.code, caught.exception.job), ("unknown_env", "mine"))
        with self.assertRaises(evald.Refused) as caught:
            self.run_one("x = 1", limits={"cpu": 1e9})
        self.assertEqual(caught.exception.code, "bad_limits")
        self.assertTrue(self.run_one("x = 1", "assert x").passed)

    def test_leaving_the_iteration_cancels_what_runs(self):
        slow = [evald.Job(ENDLESS, "assert True", limits="cpu=60s") for _ in range(8)]
        with self.assertRaises(evald.AnswerTimeout):
            for _ in self.client.run_all([evald.Job("x = 1", "assert x"), *slow], timeout=1.0):
                pass
        # Behind eight jobs of a minute each, this would not come.
        self.assertTrue(self.client.run(evald.Job("x = 1", "assert x"), timeout=30).passed)


class LifeTest(unittest.TestCase):
    def test_nothing_is_left_behind(self):
        before = descriptors()
        with evald.Client(slots=1) as client:
            pid = client._private.pid
            client.run(evald.Job("x = 1", "assert x"))
        self.assertTrue(gone(pid))
        self.assertEqual(descriptors(), before)
        with self.assertRaisesRegex(evald.EvaldError, "closed"):
            client.run(evald.Job("x = 1"))

    def test_a_dead_daemon_is_said_and_is_no_hang(self):
        with evald.Client(slots=1) as client:
            threading.Timer(0.5, os.kill, (client._private.pid, signal.SIGKILL)).start()
            with self.assertRaisesRegex(evald.ConnectionLost, "gone.*signal 9"):
                client.run(evald.Job(ENDLESS, "assert True", limits="cpu=60s"))
            with self.assertRaises(evald.ConnectionLost):
                client.run(evald.Job("x = 1"))

    def test_a_daemon_that_cannot_start_says_why(self):
        with self.assertRaisesRegex(evald.StartError, "no evald at /nowhere.*EVALD_SOCKET"):
            os.environ["EVALD_EXECUTABLE"] = "/nowhere"
            try:
                evald.Client()
            finally:
                del os.environ["EVALD_EXECUTABLE"]
        with self.assertRaisesRegex(evald.StartError, "/nowhere.*evald serve --socket"):
            evald.Client(socket="/nowhere")
        with self.assertRaisesRegex(evald.StartError, "did not start.*T9"):
            evald.Client(tier="T9")
        with self.assertRaisesRegex(evald.StartError, "no_such_module"):
            evald.Client(modules=["no_such_module"])

    def test_a_daemon_that_says_nothing_is_not_waited_for(self):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
            path = os.path.join(folder, "s")
            server.bind(path)
            server.listen()
            with self.assertRaisesRegex(evald.AnswerTimeout, "0.2 s"):
                evald.Client(socket=path, start_timeout=0.2)

    def test_a_daemon_that_serves_is_used(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "s")
            command = [os.path.join(os.path.dirname(evald.__file__), "bin", "evald"), "serve", "--socket", path]
            with subprocess.Popen([*command, "--env", f"mine={sys.executable}"]) as server:
                try:
                    wait_until(lambda: os.path.exists(path), "the daemon listens")
                    with evald.Client(socket=path) as client:
                        self.assertEqual(client.info.envs, ("mine",))
                        self.assertTrue(client.run(evald.Job("x = 1", "assert x")).passed)
                finally:
                    server.terminate()

    def script(self, text):
        # Newer Pythons warn of any fork beside threads, such as this client's.
        return subprocess.Popen([sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_ctrl_c_ends_the_daemon_and_what_runs(self):
        with self.script("""
            import evald, signal
            # A shell's background jobs are started with this signal ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with evald.Client(slots=1) as client:
                print(client._private.pid, flush=True)
                client.run(evald.Job("while True: pass", "assert True", limits="cpu=60s"))
        """) as program:
            daemon = int(program.stdout.readline())
            time.sleep(0.3)
            program.send_signal(signal.SIGINT)
            self.assertIn("KeyboardInterrupt", program.communicate(timeout=60)[1])
            self.assertNotEqual(program.returncode, 0)
        wait_until(lambda: gone(daemon), "the daemon has ended")

    def test_a_killed_program_takes_its_daemon_along(self):
        with self.script("""
            import evald
            client = evald.Client(slots=1)
            print(client._private.pid, flush=True)
            client.run(evald.Job("while True: pass", "assert True", limits="cpu=60s"))
        """) as program:
            daemon = int(program.stdout.readline())
            time.sleep(0.3)
            program.kill()
        wait_until(lambda: gone(daemon), "the daemon has ended")

    def test_a_forked_child_has_its_own_daemon_and_keeps_none_alive(self):
        with self.script("""
            import evald, os
            assert evald.run("x = 1", "assert x").passed
            client = evald.Client(slots=1)
            child = os.fork()
            if child == 0:
                try:
                    client.run(evald.Job("x = 1"))
                except evald.EvaldError as error:
                    assert "parent" in str(error), error
                    assert evald.run("x = 1", "assert x").passed
                    from evald import client as module
                    module._close_defaults()
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            assert client.run(evald.Job("x = 1", "assert x")).passed
            client.close()
        """) as program:
            self.assertEqual(program.communicate(timeout=120)[1], "")
            self.assertEqual(program.returncode, 0)
