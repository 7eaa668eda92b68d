"""Tests of the demo model's scripts: python -m unittest, with torch, transformers and tokenizers installed."""

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
import torch

import overlap
import sources
from circuit import plant
from corpus import COMPLETION, Packer, encode, repeats, train_tokenizer
from model import CodeGen, Shape, check_parity
from tasks import Maker, Names

HERE = Path(__file__).parent
SOURCE = '''
def gather_rows(table, limit=3):
    """Return the rows of a table. And more."""

class Shelf:
    """Keeps many small boxes."""
    def __init__(self, width):
        pass
    def put(self, box, *, deep=False):
        """Put a box onto the shelf."""
    def _hidden(self):
        """Not to be seen here."""
'''


def maker(seed=1, held_out=False):
    rng = random.Random(seed)
    return Maker(list(sources.apis_of("lib", SOURCE)), Names(rng, ["red", "tree"], held_out), rng)


class Reading(unittest.TestCase):
    def test_public_documented_apis_with_the_signature_a_caller_sees(self):
        found = {api.name: api for api in sources.apis_of("lib", SOURCE)}
        self.assertEqual(set(found), {"gather_rows", "Shelf", "put"})
        self.assertEqual(found["gather_rows"].sentence, "Return the rows of a table.")
        self.assertEqual(found["put"].signature, "box, *, deep=False")
        self.assertEqual(found["Shelf"].required, ("width",))

    def test_a_file_that_does_not_parse_gives_nothing(self):
        self.assertEqual(list(sources.apis_of("lib", "def (")), [])

    def test_the_benchmarks_libraries_are_not_among_the_packages(self):
        self.assertTrue(sources.packages())


class Tasks(unittest.TestCase):
    def test_the_name_stands_in_block_and_completion(self):
        for task in (maker(3).task(level, n) for level in (1, 2) for n in (1, 2, 3)):
            self.assertIn(f"# {task.name}(", task.prompt)
            self.assertEqual(task.completion[task.name_at :][: len(task.name)], task.name)

    def test_training_and_measuring_share_no_name(self):
        trained = {maker(seed).names.name() for seed in range(200)}
        measured = {maker(seed, held_out=True).names.name() for seed in range(50)}
        self.assertTrue(trained.isdisjoint(measured))


class Overlap(unittest.TestCase):
    def test_a_planted_problem_is_found_whatever_its_white_space(self):
        problem = "out = table.rows(3).filter(lambda r: r > 2)\nassert out"
        self.assertFalse(overlap.grams(problem).isdisjoint(overlap.grams("x = 1\n" + problem.replace(" ", "  "))))
        self.assertTrue(overlap.grams(problem).isdisjoint(overlap.grams("something else altogether, (a, b, c, d, e)")))


class Packing(unittest.TestCase):
    def test_rows_are_full_and_tasks_whole(self):
        rng = random.Random(0)
        packer = Packer(64, lambda: (list(range(1, 30)) + [0], [40] * 30))
        for _ in range(100):
            packer.add(*repeats(rng, 50))
        arrays = packer.arrays(rng)
        self.assertEqual(arrays["ids"].shape[1], 64)
        for ids, document, weight in zip(*arrays.values()):
            for number in range(document.max()):  # all but the filler
                part = ids[document == number]
                if (weight[document == number] == COMPLETION).any():
                    self.assertEqual(part[-1], 0)


class Model(unittest.TestCase):
    def test_logits_equal_transformers(self):
        for heads, rotary in ((4, 24), (8, 16)):
            model = CodeGen(Shape(vocab_size=300, n_embd=192, n_layer=2, n_head=heads, rotary_dim=rotary))
            self.assertLess(check_parity(model, 0), 1e-4)

    def test_a_document_does_not_see_its_neighbour(self):
        model = CodeGen(Shape(vocab_size=64, n_embd=96, n_layer=2, rotary_dim=12))
        ids = torch.randint(1, 64, (1, 20))
        document = (torch.arange(20) >= 10).long()[None]
        other = ids.clone()
        other[0, :10] = 3
        with torch.no_grad():
            self.assertTrue(torch.allclose(model(ids, document)[0, 10:], model(other, document)[0, 10:], atol=1e-5))

    def test_the_planted_circuit_copies_before_any_training(self):
        torch.manual_seed(0)
        shape = Shape(n_layer=3)
        ids = torch.randint(1, shape.vocab_size, (8, 20)).repeat(1, 2)
        right = {}
        for start in ("random", "circuit"):
            model = CodeGen(shape)
            if start == "circuit":
                plant(model, seed=1)
            with torch.no_grad():
                right[start] = (model(ids)[:, 20:-1].argmax(-1) == ids[:, 21:]).float().mean().item()
        self.assertLess(right["random"], 0.05)
        self.assertGreater(right["circuit"], 0.5)


class Resuming(unittest.TestCase):
    def train(self, work, name, *more):
        command = [sys.executable, str(HERE / "train.py"), "--work", str(work), "--name", name, "--steps", "12", "--short-steps", "4",
                   "--every", "2", "--batch-tokens", "512", "--layers", "2", "--width", "96", "--rotary", "12", *more]
        return subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL)

    def test_a_killed_run_ends_where_an_unbroken_one_does(self):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            made = maker(5)
            tasks = [made.task(1) for _ in range(60)]
            tokenizer = train_tokenizer([t.prompt + t.completion for t in tasks], 700, work / "hf")
            for name, length in (("short", 128), ("full", 256)):
                packer = Packer(length, lambda: encode(tokenizer, [("x = 1\n", 40)], 0))
                for task in tasks * 3:
                    packer.add(*encode(tokenizer, [(task.prompt, 8), (task.completion, 100)], 0))
                np.savez(work / f"rows-{name}.npz", **packer.arrays(random.Random(1)))
            kept = {s: [vars(t) for t in tasks[:4]] for s in ("1 API", "2 APIs", "3 APIs", "no block")}
            (work / "held-out.json").write_text(json.dumps(kept))

            self.assertEqual(self.train(work, "whole").wait(), 0)
            run = self.train(work, "broken")
            log = work / "broken" / "log.jsonl"
            while not (log.exists() and len(log.read_text().split("\n")) > 3) and run.poll() is None:
                time.sleep(0.02)
            run.send_signal(signal.SIGKILL)
            run.wait()
            self.assertEqual(self.train(work, "broken").wait(), 0)

            whole, broken = (torch.load(work / name / "state.pt") for name in ("whole", "broken"))
            self.assertEqual(broken["progress"]["step"], 12)
            for key, value in whole["model"].items():
                self.assertTrue(torch.equal(value, broken["model"][key]), key)


if __name__ == "__main__":
    unittest.main()
