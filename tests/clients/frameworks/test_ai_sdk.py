"""The Vercel AI SDK with both providers; its cases are in ai.mjs."""

import os
import pathlib

import pytest

import nodes
from proven import Client

CLIENTS = {provider: Client(f"Vercel AI SDK, {provider}", npm=("ai", provider))
           for provider in ("@ai-sdk/openai", "@ai-sdk/open-responses")}
PROGRAM = pathlib.Path(__file__).with_name("ai.mjs")


@pytest.fixture(scope="module")
def ran(gateway, upstream_server, tmp_path_factory):
    return nodes.Ran(PROGRAM, tmp_path_factory.mktemp("ai"), gateway.url, upstream_server.url)


@pytest.mark.parametrize("name", nodes.cases(PROGRAM, CLIENTS))
def test_case(ran, name):
    if "code interpreter" in name and not os.environ.get("TEST_INTERPRETER_BUNDLE"):
        pytest.skip("no interpreter: TEST_INTERPRETER_BUNDLE is not set")
    ran.check(name)
