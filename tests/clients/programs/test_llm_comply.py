"""llm-comply: the compliance tests of Open Responses, all of them.

Its schema knows the reasoning events by other names than the official SDKs, so the gateway runs with
VR_REASONING_EVENTS=open_responses; and it asks for reasoning only where a model's name promises it.
"""

import json
import pathlib
import subprocess
import sys

import pytest

from proven import Client
from serving import Gateway

CLIENT = Client("llm-comply", python="llm-comply")
TESTS = [
    "basic-response", "system-prompt", "multi-turn", "tool-calling", "streaming-response", "streaming-usage",
    "image-input", "assistant-phase", "response-output-phase-schema", "compact-response", "compact-missing-model",
    "reasoning-summary", "error-handling"]


@pytest.fixture(scope="module")
def results(upstream_server, tmp_path_factory):
    gateway = Gateway(tmp_path_factory.mktemp("comply"), upstream_server.url, VR_REASONING_EVENTS="open_responses")
    program = pathlib.Path(sys.executable).with_name("llm-comply")
    done = subprocess.run([program, "-u", gateway.url + "/v1", "-k", "any", "-m", "o3-stub", "--json", "-v"],
                          capture_output=True, text=True, timeout=120)
    gateway.stop()
    assert not upstream_server.violations, upstream_server.violations
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return {result["id"]: result for result in json.loads(done.stdout)["results"]}


@pytest.mark.proves("all of its tests")
@pytest.mark.parametrize("name", TESTS)
def test_case(results, name):
    assert results[name]["status"] == "passed", results[name]


@pytest.mark.proves("all of its tests")
def test_there_are_no_others(results):
    assert set(results) == set(TESTS)
