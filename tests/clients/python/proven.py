"""What the tests of client programs prove, written down for the table in the README.

A pytest plugin. A test module (or its conftest's `pytest_configure`, as `config.client`) says which
program it drives, and its tests are marked with what they prove:

    CLIENT = Client("LangChain", python="langchain-openai")

    @pytest.mark.proves("tool round trip")
    def test_...

A mark may name a client of its own: `proves("...", client=...)`. What is proven is what passed everywhere it was tried, teardown included, where the bytes are checked.
`scripts/clients-table` makes the table of it.

environment:
  PROVEN_FILE   JSON lines are appended to it at the end; without it nothing is written
  PROVEN_BY     the command that ran the suite, for the table
"""

import importlib.metadata
import json
import os
import pathlib
from dataclasses import dataclass

import pytest

WORST_FIRST = ("failed", "passed", "skipped")


@dataclass(frozen=True)
class Client:
    """A program under test; its version is read from what is installed."""

    name: str
    python: str = ""  # its distribution, or
    npm: tuple = ()  # its packages in the project that NODE_PROJECT names

    def version(self):
        if self.python:
            return importlib.metadata.version(self.python)
        found = [(package, npm_version(package)) for package in self.npm]
        return found[0][1] if len(found) == 1 else ", ".join(" ".join(pair) for pair in found)


def npm_version(package):
    path = pathlib.Path(os.environ["NODE_PROJECT"], "node_modules", package, "package.json")
    return json.loads(path.read_text())["version"]


def pytest_configure(config):
    config.addinivalue_line("markers", "proves(what): what a passing test of a client program shows")
    config.proven = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    mark = item.get_closest_marker("proves")
    client = getattr(item.module, "CLIENT", getattr(item.config, "client", None))
    # A test that passed its set-up has shown nothing yet.
    if mark and (report.when == "call" or report.outcome != "passed"):
        key = (mark.kwargs.get("client", client), mark.args[0])
        outcomes = item.config.proven.setdefault(key, set())
        outcomes.add(report.outcome)
    return report


def pytest_sessionfinish(session):
    path = os.environ.get("PROVEN_FILE")
    if not path:
        return
    with open(path, "a") as out:
        for (client, what), outcomes in session.config.proven.items():
            outcome = next(o for o in WORST_FIRST if o in outcomes)
            version = "" if outcome == "skipped" else client.version()
            line = {"client": client.name, "version": version, "proves": what, "outcome": outcome,
                    "by": os.environ.get("PROVEN_BY", "")}
            out.write(json.dumps(line) + "\n")
