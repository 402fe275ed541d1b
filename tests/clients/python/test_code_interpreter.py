"""The code interpreter through the official SDK: real Python in the real sandbox, once below the gateway and
once as a service of its own."""

import base64
import os

import pytest
from openai import BadRequestError

from recorder import sync_client

pytestmark = [pytest.mark.proves("code interpreter"), pytest.mark.skipif(
    not os.environ.get("TEST_INTERPRETER_BUNDLE"), reason="no interpreter installed: TEST_INTERPRETER_BUNDLE is not set")]

AUTO = {"type": "code_interpreter", "container": {"type": "auto"}}
OUTPUTS = ["code_interpreter_call.outputs"]


@pytest.fixture(params=["gateway", "external_gateway"])
def client(request, upstream, recorder):
    with sync_client(request.getfixturevalue(request.param).url, recorder) as client:
        yield client


def run(client, code, **more):
    return client.responses.create(**({"model": "python", "input": code, "tools": [AUTO], "include": OUTPUTS} | more))


def call_of(response):
    (call,) = [item for item in response.output if item.type == "code_interpreter_call"]
    return call


def logs_of(response):
    return "".join(output.logs for output in call_of(response).outputs if output.type == "logs")


def test_code_runs_and_the_model_is_told(client, upstream):
    response = run(client, "print(6 * 7)")
    call = call_of(response)
    assert (response.status, call.status, call.code) == ("completed", "completed", "print(6 * 7)")
    assert logs_of(response) == "42\n" and response.output_text == "It gave: 42\n"
    assert call.container_id.startswith("cntr_")
    assert [m["role"] for m in upstream.last_body()["messages"]] == ["user", "assistant", "tool"]


def test_streamed_code_grows_piece_by_piece(client):
    code = "text = 'a \\u00e9'\nfor i in range(3):\n    print(i, text)"
    events = list(run(client, code, stream=True))
    types = [event.type.removeprefix("response.") for event in events]
    ours = [t for t in types if t.startswith("code_interpreter_call")]
    deltas = [e.delta for e in events if e.type == "response.code_interpreter_call_code.delta"]
    assert len(deltas) > 3 and "".join(deltas) == code
    assert ours[0] == "code_interpreter_call.in_progress"
    assert ours[-3:] == ["code_interpreter_call_code.done", "code_interpreter_call.interpreting", "code_interpreter_call.completed"]
    assert logs_of(events[-1].response) == "0 a \u00e9\n1 a \u00e9\n2 a \u00e9\n"


def test_a_traceback_is_output_and_not_a_failure(client):
    response = run(client, "1 / 0")
    assert call_of(response).status == "completed" and "ZeroDivisionError" in logs_of(response)


def test_state_lasts_along_the_chain_and_no_further(client):
    first = run(client, "x = 41")
    second = run(client, "print(x + 1)", previous_response_id=first.id)
    assert logs_of(second) == "42\n"
    assert call_of(second).container_id == call_of(first).container_id
    named = run(client, "print(x + 2)", tools=[{"type": "code_interpreter", "container": call_of(first).container_id}])
    assert logs_of(named) == "43\n"
    assert "NameError" in logs_of(run(client, "print(x)"))


def test_outputs_are_for_those_who_ask(client):
    response = run(client, "print(1)", include=[])
    assert call_of(response).outputs is None
    assert call_of(client.responses.retrieve(response.id)).outputs is None
    assert logs_of(client.responses.retrieve(response.id, include=OUTPUTS)) == "1\n"


def test_files_stay_in_the_container(client):
    first = run(client, "open('/mnt/data/a.txt', 'w').write('kept')")
    assert "kept" in logs_of(run(client, "print(open('/mnt/data/a.txt').read())", previous_response_id=first.id))


def test_an_unknown_container_is_told(client):
    response = run(client, "print(1)", tools=[{"type": "code_interpreter", "container": "cntr_unknown"}])
    assert call_of(response).status == "failed" and "not found" in logs_of(response)


@pytest.mark.parametrize("container", [
    {"type": "auto", "file_ids": ["file-1"]}, {"type": "auto", "memory_limit": "16g"}, {"type": "manual"}, 7,
    {"type": "auto", "network_policy": {"type": "allowlist", "allowed_domains": ["example.org"]}}])
def test_what_is_not_served_is_refused_with_its_place(client, container):
    with pytest.raises(BadRequestError) as refused:
        run(client, "1", tools=[{"type": "code_interpreter", "container": container}])
    assert refused.value.param.startswith("tools[0].container")


def test_a_forced_choice_ends(client):
    response = run(client, "print('once')", tool_choice={"type": "code_interpreter"})
    assert response.output_text == "It gave: once\n"


@pytest.mark.skipif(not os.environ.get("TEST_INTERPRETER_SCIENCE_BUNDLE"), reason="no science packages")
def test_a_plot_is_a_picture(science_client):
    code = "import pandas as pd, matplotlib.pyplot as plt\npd.DataFrame({'a': [1, 3, 2]}).plot()\nplt.show()"
    images = [o for o in call_of(run(science_client, code)).outputs if o.type == "image"]
    kind, data = images[0].url.split(",", 1)
    assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG\r\n\x1a\n")
