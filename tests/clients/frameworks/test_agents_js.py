"""The OpenAI Agents SDK for JavaScript; its cases are in agents.mjs."""

import os
import pathlib

import pytest

import nodes
from proven import Client

CLIENT = Client("OpenAI Agents SDK (JavaScript)", npm=("@openai/agents",))
PROGRAM = pathlib.Path(__file__).with_name("agents.mjs")


@pytest.fixture(scope="module")
def ran(gateway, upstream_server, tmp_path_factory):
    return nodes.Ran(PROGRAM, tmp_path_factory.mktemp("agents"), gateway.url, upstream_server.url)


@pytest.mark.parametrize("name", nodes.cases(PROGRAM))
def test_case(ran, name):
    if "code interpreter" in name and not os.environ.get("TEST_INTERPRETER_BUNDLE"):
        pytest.skip("no interpreter: TEST_INTERPRETER_BUNDLE is not set")
    ran.check(name)
