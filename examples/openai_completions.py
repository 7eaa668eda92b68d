#!/usr/bin/env python3
"""Completes the prompts of `inhouse study` by an OpenAI-compatible completion endpoint (vLLM, llama.cpp's server, a vendor's).

The engine opens no connection of its own. Where a study's model is a program, as in

    [[models]]
    name = "Codex"
    command = ["python3", "examples/openai_completions.py", "--url", "http://localhost:8000/v1/completions", "--model", "codex"]

it starts that program, writes a question a line to its standard input and reads an answer a line from its standard output:

    {"id": "T/0", "prompt": "...", "n": 20, "temperature": 0.8, "top_p": 0.9, "max_tokens": 100, "stop": ["\\nclass"], "seed": 7}
    {"id": "T/0", "completions": ["...", ...]}

Prompts leave the machine for the address that you give, and nothing else does. The key is read from the environment variable
that --key-env names, if it is set.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request

# Endpoints take four stop strings at most; inhouse cuts at all of them whatever comes back.
MOST_STOPS = 4
WORTH_TRYING_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


def post(url, key, body, timeout, tries):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    for attempt in range(1, tries + 1):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            if error.code not in WORTH_TRYING_AGAIN or attempt == tries:
                raise RuntimeError(f"HTTP {error.code}: {said}") from error
            wait = float(error.headers.get("Retry-After") or 2**attempt)
        except (urllib.error.URLError, TimeoutError) as error:
            if attempt == tries:
                raise RuntimeError(str(error)) from error
            wait = 2**attempt
        time.sleep(min(wait, 60))


def complete(question, arguments, key):
    completions = []
    while len(completions) < question["n"]:
        body = {
            "model": arguments.model,
            "prompt": question["prompt"],
            "n": min(arguments.at_once, question["n"] - len(completions)),
            "temperature": question["temperature"],
            "top_p": question["top_p"],
            "max_tokens": question["max_tokens"],
            "stop": question["stop"][:MOST_STOPS] or None,
            # Another seed for each request, or all of them would answer alike.
            "seed": (question["seed"] + len(completions)) % 2**31,
        }
        choices = post(arguments.url, key, body, arguments.timeout, arguments.tries)["choices"]
        if not choices:
            raise RuntimeError("the answer has no choices")
        completions += [choice["text"] for choice in choices]
    return completions[: question["n"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True, help="the endpoint, as in http://localhost:8000/v1/completions")
    parser.add_argument("--model", required=True, help="what the endpoint calls the model")
    parser.add_argument("--key-env", default="OPENAI_API_KEY", help="environment variable that holds the key")
    parser.add_argument("--at-once", type=int, default=20, help="completions asked for in one request")
    parser.add_argument("--timeout", type=float, default=300, help="seconds to wait for an answer")
    parser.add_argument("--tries", type=int, default=6, help="how often a request is sent before giving up")
    arguments = parser.parse_args()
    key = os.environ.get(arguments.key_env)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = {"completions": complete(question, arguments, key)}
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"id": question["id"], **answer}), flush=True)


if __name__ == "__main__":
    main()
