"""Answers, streamed and not: text, reasoning, images, logprobs, structured output, refusal, a cut."""

import json

import pytest

from tools import Person, WEATHER

pytestmark = pytest.mark.proves("answers of every kind, streamed and not")

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def streamed(client, **request):
    """The events and the final response of one streamed call."""
    events = list(client.responses.create(stream=True, **request))
    return events, events[-1].response


def text_of(response, field="text"):
    return "".join(getattr(part, field) for item in response.output if item.type == "message" for part in item.content)


def test_create(client):
    response = client.responses.create(model="text", input="hello there")
    assert response.status == "completed" and response.output_text == "HELLO THERE"
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert response.usage.input_tokens_details.cached_tokens == 1
    assert response.completed_at >= response.created_at
    assert response._request_id


def test_stream(client):
    events, response = streamed(client, model="text", input="hello there, this is streamed")
    assert response.output_text == "HELLO THERE, THIS IS STREAMED"
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert len(deltas) > 3 and "".join(deltas) == response.output_text
    assert response.usage.output_tokens > 0


def test_stream_and_whole_answer_are_the_same(client):
    for model in ("text", "reasoning", "tools", "refusal", "length"):
        request = {"model": model, "input": "say it", "tools": [WEATHER]}
        whole = client.responses.create(**request).to_dict()
        flowed = streamed(client, **request)[1].to_dict()

        def shape(response):
            hidden = {"id", "created_at", "completed_at", "call_id"}
            return json.loads(json.dumps(response), object_hook=lambda d: {k: v for k, v in d.items() if k not in hidden})

        assert shape(whole) == shape(flowed), model


def test_stream_helper(client):
    with client.responses.stream(model="text", input="with the helper") as stream:
        snapshots = [e.snapshot for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text == "WITH THE HELPER"


def test_input_as_items_and_instructions(client, upstream):
    response = client.responses.create(model="instructions", instructions="Be brief.", input=[
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "three"}]},
    ])
    assert response.output_text == "Be brief." and response.instructions == "Be brief."
    assert [m["role"] for m in upstream.last_body()["messages"]] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("model", ["reasoning", "reasoning-content"])
def test_reasoning_items(client, model):
    whole = client.responses.create(model=model, input="2 + 2?")
    events, flowed = streamed(client, model=model, input="2 + 2?")
    for response in (whole, flowed):
        assert [item.type for item in response.output] == ["reasoning", "message"]
        assert response.output[0].content[0].text == "Two and two make four."
        assert response.output_text == "The answer is 4."
        assert response.usage.output_tokens_details.reasoning_tokens > 0
    deltas = [e.delta for e in events if e.type == "response.reasoning_text.delta"]
    assert "".join(deltas) == "Two and two make four."


def test_reasoning_items_can_be_sent_back(client):
    first = client.responses.create(model="reasoning", input="2 + 2?", store=False)
    history = [{"role": "user", "content": "2 + 2?"}, *(item.to_dict() for item in first.output)]
    second = client.responses.create(model="text", input=[*history, {"role": "user", "content": "and then"}])
    assert second.output_text == "AND THEN"


def test_parse_with_a_schema(client, upstream):
    response = client.responses.parse(model="json", input="Who?", text_format=Person)
    assert response.output_parsed == Person(name="Ada", age=36)
    sent = upstream.last_body()["response_format"]
    assert sent["type"] == "json_schema" and sent["json_schema"]["strict"] is True
    assert sent["json_schema"]["schema"]["required"] == ["name", "age"]
    assert response.text.format.type == "json_schema"


def test_stream_helper_parses_a_schema(client):
    with client.responses.stream(model="json", input="Who?", text_format=Person) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == Person(name="Ada", age=36)


def test_json_object(client, upstream):
    response = client.responses.create(model="json", input="JSON please", text={"format": {"type": "json_object"}})
    assert json.loads(response.output_text) == {"answer": "Ada"}
    assert upstream.last_body()["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("url", [PIXEL, "https://example.com/cat.png"])
def test_images(client, upstream, url):
    response = client.responses.create(model="image", input=[{"role": "user", "content": [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": url, "detail": "auto"},
    ]}])
    assert response.output_text == f"I see 1: {url[:40]}"
    parts = upstream.last_body()["messages"][-1]["content"]
    assert [p["type"] for p in parts] == ["text", "image_url"]


def test_logprobs(client, upstream):
    request = {"model": "logprobs", "input": "hello", "top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    whole = client.responses.create(**request)
    events, flowed = streamed(client, **request)
    assert upstream.last_body()["logprobs"] is True and upstream.last_body()["top_logprobs"] == 2
    for response in (whole, flowed):
        logprobs = response.output[0].content[0].logprobs
        assert [p.token for p in logprobs] == ["HELLO"]
        assert logprobs[0].logprob == -0.25 and len(logprobs[0].top_logprobs) == 2
        assert logprobs[0].bytes == list(b"HELLO")
    assert any(e.logprobs for e in events if e.type == "response.output_text.delta")


def test_refusal(client):
    whole = client.responses.create(model="refusal", input="x")
    events, flowed = streamed(client, model="refusal", input="x")
    for response in (whole, flowed):
        assert text_of(response, "refusal") == "I cannot help with that."
    assert any(e.type == "response.refusal.delta" for e in events)


def test_an_answer_that_is_cut_is_incomplete(client):
    whole = client.responses.create(model="length", input="x", max_output_tokens=16)
    events, flowed = streamed(client, model="length", input="x", max_output_tokens=16)
    for response in (whole, flowed):
        assert response.status == "incomplete"
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output[-1].status == "incomplete"
    assert events[-1].type == "response.incomplete"


def test_sampling_settings_go_upstream_and_are_echoed(client, upstream):
    response = client.responses.create(
        model="text", input="x", temperature=0.5, top_p=0.9, max_output_tokens=77, metadata={"a": "b"},
        parallel_tool_calls=False, user="someone", prompt_cache_key="key", safety_identifier="safe", truncation="disabled")
    sent = upstream.last_body()
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"]) == (0.5, 0.9, 77)
    assert (response.temperature, response.top_p, response.max_output_tokens) == (0.5, 0.9, 77)
    assert response.metadata == {"a": "b"} and response.parallel_tool_calls is False
    assert response.prompt_cache_key == "key" and response.safety_identifier == "safe"


def test_unknown_fields_and_tools_do_not_fail_a_request(client, upstream):
    response = client.responses.create(model="text", input="x", extra_body={
        "client_metadata": {"a": "b"}, "not_a_field": 1, "tools": [{"type": "hologram", "size": 3}]})
    assert response.output_text == "X"
    assert not upstream.last_body().get("tools")
