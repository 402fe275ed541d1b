"""The other endpoints, the asynchronous client, and clients that leave."""

import asyncio
import urllib.request

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from tools import Person, WEATHER
from upstream import MODELS

pytestmark = pytest.mark.proves("models, async client, clients that leave")


def test_models(client):
    assert [m.id for m in client.models.list()] == list(MODELS)
    assert client.models.retrieve("text").id == "text"
    with pytest.raises(NotFoundError):
        client.models.retrieve("nobody")


def test_chat_completions_pass_through(client, upstream):
    messages = [{"role": "user", "content": "hello"}]
    assert client.chat.completions.create(model="text", messages=messages).choices[0].message.content == "HELLO"
    chunks = list(client.chat.completions.create(model="text", messages=messages, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "HELLO"
    assert upstream.last_body() == {"model": "text", "messages": messages, "stream": True}, "verbatim"
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model="too-long", messages=messages)
    assert caught.value.param == "input_tokens", "the upstream's own error, unchanged"


def test_health(gateway):
    for path in ("/health", "/health/ready"):
        with urllib.request.urlopen(gateway.url + path) as answer:
            assert answer.status == 200


def test_request_id_is_kept(client, recorder):
    client.responses.create(model="text", input="x", extra_headers={"x-request-id": "mine-1"})
    headers = recorder.exchanges[-1][1].headers
    assert headers["x-request-id"] == "mine-1" and int(headers["openai-processing-ms"]) >= 0


def test_async_client(async_client):
    async def scenario():
        async with async_client as client:
            first = await client.responses.create(model="remember", input="My name is Ada.")
            async with client.responses.stream(model="remember", input="What is my name?",
                                               previous_response_id=first.id) as stream:
                second = await stream.get_final_response()
            assert second.output_text == "Your name is Ada."
            parsed = await client.responses.parse(model="json", input="Who?", text_format=Person)
            assert parsed.output_parsed == Person(name="Ada", age=36)
            items = [i async for i in client.responses.input_items.list(second.id, order="asc")]
            assert len(items) == 3
            assert (await client.responses.retrieve(second.id)).id == second.id
            await client.responses.delete(second.id)

    asyncio.run(scenario())


def test_many_at_once(async_client):
    async def one(client, n):
        stream = await client.responses.create(model="text", input=f"number {n}", tools=[WEATHER], stream=True)
        events = [event async for event in stream]
        return events[-1].response.output_text

    async def scenario():
        async with async_client as client:
            answers = await asyncio.gather(*(one(client, n) for n in range(32)))
        assert answers == [f"NUMBER {n}" for n in range(32)]

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_client_that_leaves_frees_the_upstream(gateway, upstream, stream):
    async def scenario():
        async with AsyncOpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0) as client:
            call = asyncio.create_task(client.responses.create(model="silent", input="x", stream=stream))
            while not upstream.requests:
                await asyncio.sleep(0.02)
            call.cancel()

    asyncio.run(scenario())
    assert upstream.requests[0].left.wait(10), "the upstream request must be closed"
