"""Learns the ranker's weights and measures each signal alone and left out, on held-out libraries and on pools that nothing is learned from.

    python3 benches/ranker/ablation.py INHOUSE USAGE_ROWS WHEELS OUT [BENCHMARKS PANDAS_WHEEL TORCHTEXT_WHEEL TORCHDATA_WHEEL]

INHOUSE is the built program, USAGE_ROWS core's example of that name (cargo build --release -p inhouse-core --example usage_rows), WHEELS the
folder of the packages of engine/train/ranker-sources.toml (pip fetches what is missing), OUT the folder of the run. With BENCHMARKS the pools
of that folder are measured too: pandas with the usage in the tests of its wheel, Monkey with the same in Monkey's words, torchdata with the
usage in torchtext's and its own wheel. Run it from the repository's root; it ends with report.md in OUT.
"""

import gzip
import json
import os
import subprocess
import sys


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main():
    inhouse, usage_rows, wheels, out = sys.argv[1:5]
    os.makedirs(out, exist_ok=True)
    text = open("engine/train/ranker.toml", encoding="utf-8").read()
    text = text.replace("../inhouse-ranker-wheels", wheels).replace("../inhouse-ranker-run", out)
    private = "tests/private-library"
    pools = [("private-library", f"{private}/gaugewren", [f"{private}/tests/test_behaviour.py"], f"{private}/problems.jsonl")]
    if len(sys.argv) > 5:
        benchmarks, pandas, torchtext, torchdata = sys.argv[5:9]

        def pool(name, kind):
            return f"{benchmarks}/apis/{name}.{kind}.jsonl.gz"

        def write(name, code, names=None):
            path = f"{out}/{name}.usage.jsonl"
            arguments = [usage_rows, pool("pandas" if name == "monkey" else name, "full"), code]
            if names:
                with open(f"{out}/names.json", "w", encoding="utf-8") as file:
                    json.dump(names, file)
                arguments.append(f"{out}/names.json")
            with open(path, "wb") as file:
                subprocess.run(arguments, stdout=file, check=True)
            return path

        # Both pools have the same records in the same order.
        names = {a["name"]: b["name"] for a, b in zip(rows(pool("pandas", "full")), rows(pool("monkey", "full")), strict=True)}
        for name, usage in [
            ("pandas", write("pandas", pandas)),
            ("monkey", write("monkey", pandas, names)),
            ("torchdata", write("torchdata", f"{torchtext},{torchdata}")),
        ]:
            pools.append((f"{name} full", pool(name, "full"), [usage], pool(name, "gold")))
    for name, apis, usage, queries in pools:
        text += "\n[[pool]]\n" + "".join(
            f"{key} = {json.dumps(value)}\n"
            for key, value in [("name", name), ("apis", apis), ("usage", usage), ("queries", queries)]
        )
    config = f"{out}/ablation.toml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    subprocess.run([inhouse, "train", "ranker", "--config", config], check=True)
    print(open(f"{out}/report.md", encoding="utf-8").read())


main()
