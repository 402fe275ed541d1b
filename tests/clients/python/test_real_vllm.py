"""The same API through a real vLLM with a small real model (pytest --real-vllm).

The model is weak, so what it says is asked only where a grammar, or a very plain question, decides.
"""

import json
import time

import pytest
from openai import BadRequestError

from conftest import metric
from tools import CLOCK, Person, WEATHER, output_of

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(1500)]
MODEL = "smollm2-135m"
CAPITAL = "What is the capital of France? Answer in one sentence."
FAMOUS = "What is that city famous for? Answer in one sentence."


def streamed(client, **request):
    with client.responses.stream(model=MODEL, temperature=0, **request) as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        return deltas, stream.get_final_response()


def test_two_streamed_turns(real_client):
    deltas, first = streamed(real_client, input=CAPITAL, max_output_tokens=60)
    assert "Paris" in first.output_text and len(deltas) > 3
    _, second = streamed(real_client, input=FAMOUS, previous_response_id=first.id, max_output_tokens=60)
    assert "Paris" in second.output_text, "turn 2 names the city that only turn 1 was about"
    _, alone = streamed(real_client, input=FAMOUS, max_output_tokens=60)
    assert "Paris" not in alone.output_text, "without turn 1 the question cannot be answered"
    assert second.usage.input_tokens > alone.usage.input_tokens > 0


def test_continuing_and_replaying_give_the_same_answer(real_client):
    first = real_client.responses.create(model=MODEL, input=CAPITAL, temperature=0, max_output_tokens=60)
    continued = real_client.responses.create(model=MODEL, input=FAMOUS, previous_response_id=first.id,
                                             temperature=0, max_output_tokens=60)
    replayed = real_client.responses.create(model=MODEL, temperature=0, max_output_tokens=60, store=False, input=[
        {"role": "user", "content": CAPITAL}, *(i.to_dict() for i in first.output), {"role": "user", "content": FAMOUS}])
    assert continued.output_text == replayed.output_text
    assert continued.usage.input_tokens == replayed.usage.input_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_named_strict_tool_call(real_client, stream):
    request = {"model": MODEL, "input": "What time is it in Oslo?", "tools": [WEATHER, CLOCK], "temperature": 0,
               "tool_choice": {"type": "function", "name": "get_time"}, "max_output_tokens": 100}
    if stream:
        first = list(real_client.responses.create(stream=True, **request))[-1].response
    else:
        first = real_client.responses.create(**request)
    (call,) = [i for i in first.output if i.type == "function_call"]
    assert call.name == "get_time" and json.loads(call.arguments)["city"] in ("Paris", "Rome", "Oslo")
    second = real_client.responses.create(model=MODEL, previous_response_id=first.id, input=[output_of(call, "12:30")],
                                          tools=[WEATHER, CLOCK], tool_choice="none", temperature=0, max_output_tokens=40)
    assert second.output_text


def test_structured_output(real_client):
    response = real_client.responses.parse(model=MODEL, input="Ada is 36 years old. Describe her as JSON.",
                                           text_format=Person, temperature=0, max_output_tokens=200)
    if response.status == "completed":
        assert isinstance(response.output_parsed, Person)
    else:
        assert response.incomplete_details.reason == "max_output_tokens"


def test_logprobs(real_client):
    response = real_client.responses.create(model=MODEL, input=CAPITAL, top_logprobs=2, max_output_tokens=16,
                                            include=["message.output_text.logprobs"])
    part = response.output[0].content[0]
    assert "".join(p.token for p in part.logprobs).strip() == part.text.strip()


def test_a_prompt_that_is_too_long(real_client):
    from openai import BadRequestError
    with pytest.raises(BadRequestError) as caught:
        real_client.responses.create(model=MODEL, input="word " * 3000, max_output_tokens=16)
    assert caught.value.code == "context_length_exceeded"


def test_a_client_that_leaves_frees_the_model(real_client, real_vllm):
    stream = real_client.responses.create(model=MODEL, input="Count to one thousand.", stream=True,
                                          max_output_tokens=1500)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    assert metric(real_vllm, "vllm:num_requests_running") == 1
    stream.close()
    deadline = time.monotonic() + 20
    while metric(real_vllm, "vllm:num_requests_running") > 0:
        assert time.monotonic() < deadline, "the model still works for a client that left"
        time.sleep(0.1)


@pytest.mark.parametrize("syntax, definition, allowed", [
    ("regex", "(ab|cd){3}", None), ("lark", 'start: "yes" | "no"', ("yes", "no"))])
def test_a_forced_grammar_is_held(real_client, syntax, definition, allowed):
    tool = {"type": "custom", "name": "say", "format": {"type": "grammar", "syntax": syntax, "definition": definition}}
    response = real_client.responses.create(model=MODEL, input="Is water wet?", tools=[tool], max_output_tokens=60,
                                            tool_choice={"type": "custom", "name": "say"})
    (call,) = response.output
    assert call.type == "custom_tool_call" and response.status == "completed"
    assert call.input in allowed if allowed else len(call.input) == 6 and set(call.input) <= set("abcd")


def test_what_is_counted_is_what_is_used(real_client):
    request = {"model": MODEL, "input": CAPITAL, "instructions": "Be brief.", "tools": [{"type": "apply_patch"}]}
    counted = real_client.responses.input_tokens.count(**request)
    response = real_client.responses.create(max_output_tokens=16, **request)
    assert counted.input_tokens == response.usage.input_tokens


def test_truncation_keeps_the_newest_turns(real_client):
    turns = [[{"role": "user", "content": f"{i} " + "word " * 150}, {"role": "assistant", "content": "ok"}] for i in range(60)]
    history = [item for turn in turns for item in turn] + [{"role": "user", "content": CAPITAL}]
    request = {"model": MODEL, "input": history, "temperature": 0, "max_output_tokens": 40, "store": False}
    with pytest.raises(BadRequestError) as refused:
        real_client.responses.create(truncation="disabled", **request)
    assert refused.value.code == "context_length_exceeded"
    response = real_client.responses.create(truncation="auto", **request)
    assert response.status in ("completed", "incomplete") and response.usage.input_tokens > 1000
