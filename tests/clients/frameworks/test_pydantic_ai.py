"""pydantic-ai: its agent drives the gateway, its tools really run."""

import asyncio
import json

import httpx2
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelContextWindowExceededError
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

from proven import Client
from recorder import SETTINGS, AsyncRecordingTransport

CLIENT = Client("pydantic-ai", python="pydantic-ai-slim")


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def agent(gateway, upstream, recorder):
    def make(model, **more):
        http = httpx2.AsyncClient(transport=AsyncRecordingTransport(recorder))
        client = AsyncOpenAI(base_url=gateway.url + "/v1", http_client=http, **SETTINGS)
        made = Agent(OpenAIResponsesModel(model, provider=OpenAIProvider(openai_client=client)), **more)
        if model == "o3-stub":
            @made.tool_plain
            def get_weather(city: str) -> str:
                """Weather of a city."""
                return f"sunny in {city}"
        return made
    return make


def run(agent, text, **more):
    return asyncio.run(agent.run(text, **more))


@pytest.mark.proves("run with a tool")
def test_run(agent, upstream):
    result = run(agent("o3-stub", instructions="Be nice."), "weather?")
    assert result.output == "The tool says: sunny in Ada"
    messages = upstream.last_body()["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool"]
    assert messages[2]["reasoning_content"] == "I think for the 1. time.", "sent back with its raw text"


@pytest.mark.proves("run_stream with a tool")
def test_run_stream(agent):
    async def scenario():
        async with agent("o3-stub").run_stream("weather?") as result:
            return [text async for text in result.stream_text(delta=True, debounce_by=None)]

    pieces = asyncio.run(scenario())
    assert len(pieces) > 1 and "".join(pieces) == "The tool says: sunny in Ada"


@pytest.mark.proves("NativeOutput")
def test_native_output(agent, upstream):
    assert run(agent("json", output_type=NativeOutput(Person)), "Who?").output == Person(name="Ada", age=36)
    assert upstream.last_body()["response_format"]["json_schema"]["name"] == "Person"


@pytest.mark.proves("tool output")
def test_tool_output(agent, upstream):
    assert run(agent("tools", output_type=Person), "Who?").output == Person(name="Ada", age=36)
    assert upstream.last_body()["tool_choice"] == "required"


@pytest.mark.proves("openai_previous_response_id='auto'")
def test_previous_response_id(agent, upstream, recorder):
    settings = OpenAIResponsesModelSettings(openai_previous_response_id="auto")
    talker = agent("remember", model_settings=settings)

    async def scenario():  # one event loop: the client keeps its connection
        first = await talker.run("My name is Ada.")
        return await talker.run("What is my name?", message_history=first.all_messages())

    assert asyncio.run(scenario()).output == "Your name is Ada."
    last = json.loads(recorder.exchanges[-1][0].content)
    assert last["previous_response_id"] and len(last["input"]) == 1
    assert len(upstream.last_body()["messages"]) == 3


@pytest.mark.proves("reasoning settings")
def test_settings(agent, upstream):
    settings = OpenAIResponsesModelSettings(openai_reasoning_effort="low", openai_reasoning_summary="auto",
                                            openai_truncation="auto")
    result = run(agent("reasoning", model_settings=settings), "2+2?")
    thinking = [p.content for m in result.all_messages() for p in m.parts if p.part_kind == "thinking"]
    assert "Two and two make four." in thinking and upstream.last_body()["reasoning_effort"] == "low"


@pytest.mark.proves("a prompt that is too long, as its own error")
def test_too_long(agent):
    with pytest.raises(ModelContextWindowExceededError):
        run(agent("too-long"), "x")
