"""The official Node SDK; its cases are in openai.mjs."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

import nodes
import typed
from proven import Client

CLIENT = Client("openai-node", npm=("openai",))
PROGRAM = pathlib.Path(__file__).with_name("openai.mjs")


@pytest.fixture(scope="module")
def ran(gateway, upstream_server, tmp_path_factory):
    return nodes.Ran(PROGRAM, tmp_path_factory.mktemp("openai-node"), gateway.url, upstream_server.url)


@pytest.mark.parametrize("name", nodes.cases(PROGRAM))
def test_case(ran, name):
    ran.check(name)


@pytest.mark.proves("every event, item and body fits the SDK's TypeScript types exactly")
def test_types(ran):
    source, kinds = typed.program(ran.exchanges)
    assert len(kinds) > 20, kinds
    place = pathlib.Path(os.environ["NODE_PROJECT"])
    shutil.copy(PROGRAM.with_name("wire.ts"), place / "wire.ts")
    (place / "typed.ts").write_text(source)
    (place / "tsconfig.json").write_text(json.dumps(typed.CONFIG))
    done = subprocess.run(["node", "node_modules/typescript/bin/tsc", "-p", "."], cwd=place, capture_output=True, text=True,
                          env=nodes.environment(), timeout=200)
    assert done.returncode == 0, done.stdout[:8000] + done.stderr[:2000]
