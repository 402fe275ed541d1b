"""Runs test programs of Node against a gateway, and checks every byte that they received.

environment:
  NODE_PROJECT   the folder in which npm installed the packages of the suite's lock file
  NODE_HOME      the folder of a Node of version 22 or newer: it has bin/node
"""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import strict
from recorder import check_body
from serving import REPO

SHARED = REPO / "tests/clients/python/stand.mjs"
CASE = re.compile(r'^test\("([^"]+)"', re.M)


def cases(program, clients=None):
    """The names of a program's cases, read from its source, each marked with what it proves.

    `clients` has the client of the cases whose names begin with its key and a colon.
    """
    found = []
    for name in CASE.findall(program.read_text()):
        head, _, rest = name.partition(": ")
        mark = pytest.mark.proves(rest, client=clients[head]) if clients else pytest.mark.proves(name)
        found.append(pytest.param(name, marks=mark))
    return found


def environment(**more):
    path = f"{os.environ['NODE_HOME']}/bin:{os.environ['PATH']}"
    return {k: v for k, v in os.environ.items() if not k.startswith("NODE_")} | {"PATH": path} | more


class Ran:
    """One run of a program: what became of its cases, and what it received."""

    def __init__(self, program, folder, gateway_url, upstream_url):
        # Beside the packages, where Node looks for them.
        place = pathlib.Path(os.environ["NODE_PROJECT"])
        for source in (SHARED, program):
            shutil.copy(source, place / source.name)
        results, exchanges = folder / "results.jsonl", folder / "exchanges.jsonl"
        done = subprocess.run(
            ["node", place / program.name], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280,
            env=environment(GATEWAY_URL=gateway_url, UPSTREAM_URL=upstream_url, RESULTS=str(results),
                            EXCHANGES=str(exchanges)))
        self.output = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        self.results = {r["name"]: r for r in lines(results)}
        self.exchanges = lines(exchanges)

    def check(self, name):
        assert name in self.results, f"the case did not run: {self.output[-5000:]}"
        error = self.results[name]["error"]
        assert error is None, error
        for exchange in self.exchanges:
            if exchange["case"] == name:
                check_exchange(exchange)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_exchange(exchange):
    """By the types of openai-python: a second opinion on what the Node SDKs took."""
    if exchange["type"].startswith("text/event-stream"):
        strict.check_stream(exchange["body"].encode(), exchange["whole"])
    elif exchange["type"].startswith("application/json"):
        check_body(exchange["path"], exchange["status"], json.loads(exchange["body"]))
