"""Errors as the SDK shows them: before the stream, inside it, and of the transport."""

import pytest
from openai import APIError, APIStatusError, BadRequestError, InternalServerError, NotFoundError, RateLimitError

pytestmark = pytest.mark.proves("errors")


def refused(client, kind=BadRequestError, **request):
    with pytest.raises(kind) as caught:
        client.responses.create(**({"model": "text", "input": "x"} | request))
    assert caught.value.request_id
    return caught.value


@pytest.mark.parametrize("request_, param", [
    ({"temperature": 3}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"input": 7}, "input"),
    ({"input": [{"type": "hologram"}]}, "input[0]"),
    ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0].type"),
    ({"include": ["everything"]}, "include[0]"),
    ({"metadata": {"k": "v" * 513}}, "metadata"),
    ({"tool_choice": {"type": "function", "name": "absent"}}, "tool_choice"),
])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_bad_field_is_named(client, upstream, request_, param, stream):
    error = refused(client, stream=stream, **request_)
    # The API has no code for a choice of a tool that is not there.
    assert error.type == "invalid_request_error" and (error.code or param == "tool_choice")
    assert error.param.startswith(param.split("[")[0]), error.param
    assert not upstream.requests, "nothing was asked of the model"


def test_a_missing_model_is_named(client):
    with pytest.raises(BadRequestError) as caught:
        client.post("/responses", body={"input": "x"}, cast_to=object)
    assert caught.value.param == "model" and caught.value.code == "missing_required_parameter"


def test_the_offending_value_is_never_quoted(client):
    error = refused(client, truncation="hunter2-secret", extra_body={"temperature": "hunter3-secret"})
    assert "hunter" not in str(error.body)
    assert "temperature" in error.message and "truncation" in error.message, "one body lists all problems"


def test_malformed_json(client):
    with pytest.raises(BadRequestError) as caught:
        client.post("/responses", content=b'{"model": "text", "input": ', cast_to=object,
                    options={"headers": {"content-type": "application/json"}})
    assert caught.value.type == "invalid_request_error"


def test_a_body_beyond_the_limit(client):
    with pytest.raises(APIStatusError) as caught:
        client.responses.create(model="text", input="x" * (120 << 20))
    assert caught.value.status_code == 413


def test_unknown_ids(client):
    absent = "resp_" + "0" * 32
    assert refused(client, previous_response_id=absent).code == "previous_response_not_found"
    assert refused(client, previous_response_id=absent, stream=True).param == "previous_response_id"
    for call in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(NotFoundError) as caught:
            call(absent)
        assert caught.value.type == "invalid_request_error"


def test_unknown_model(client):
    assert refused(client, NotFoundError, model="nobody").code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model, kind, code", [
    ("too-long", BadRequestError, "context_length_exceeded"),
    ("busy", RateLimitError, "rate_limit_exceeded"),
    ("broken", InternalServerError, None),
])
def test_errors_of_the_model_server(client, model, kind, code, stream):
    error = refused(client, kind, model=model, stream=stream)
    assert code is None or error.code == code


@pytest.mark.parametrize("model", ["late-error", "cut"])
def test_a_fault_inside_a_stream_ends_it_in_order(client, recorder, model):
    with pytest.raises(APIError):
        list(client.responses.create(model=model, input="a long enough sentence", stream=True))
    (events,) = recorder.streams() or [[]]
    kept = [e["type"] for e in events]
    assert "error" in kept, "the SDK raises at the error event, before the end"


@pytest.mark.parametrize("model", ["late-error", "cut"])
def test_a_fault_inside_a_stream_is_stored_as_failed(client, gateway, model):
    import httpx2
    import strict
    raw = httpx2.post(gateway.url + "/v1/responses", json={"model": model, "input": "a long enough sentence", "stream": True})
    events = strict.check_stream(raw.content)
    assert [e["type"] for e in events[-2:]] == ["error", "response.failed"]
    failed = events[-1]["response"]
    assert failed["error"]["code"] == "server_error"
    assert client.responses.retrieve(failed["id"]).status == "failed"
    assert refused(client, previous_response_id=failed["id"]).param == "previous_response_id"


def test_a_fault_without_stream_is_a_status(client):
    assert refused(client, InternalServerError, model="cut").status_code in (500, 502)


def test_calls_that_are_not_served_say_so(client):
    """The SDK has methods for them: none may hang, or look like an empty success."""
    made = client.responses.create(model="text", input="x")
    with pytest.raises(BadRequestError, match="`background`"):
        client.responses.cancel(made.id)
    with pytest.raises(NotFoundError):
        client.responses.cancel("resp_none")
    with pytest.raises(BadRequestError, match="`background`") as caught:
        client.responses.retrieve(made.id, stream=True, starting_after=2)
    assert caught.value.param == "stream"
    with pytest.raises(NotFoundError, match="`previous_response_id`"):
        client.conversations.create()
    for field in ({"background": True}, {"conversation": "conv_1"}, {"prompt": {"id": "p"}}):
        error = refused(client, **field)
        assert error.code == "unsupported_value" and error.param in field
