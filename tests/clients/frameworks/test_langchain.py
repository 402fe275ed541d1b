"""LangChain's chat model over the Responses API: its tools really run."""

import json
import os

import httpx2
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from proven import Client
from recorder import SETTINGS, RecordingTransport

os.environ["LANGSMITH_TRACING"] = "false"
CLIENT = Client("LangChain", python="langchain-openai")


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def model(gateway, upstream, recorder):
    def make(name, **more):
        http = httpx2.Client(transport=RecordingTransport(recorder))
        return ChatOpenAI(base_url=gateway.url + "/v1", model=name, use_responses_api=True, http_client=http,
                          **SETTINGS, **more)
    return make


def sent(recorder):
    return [json.loads(request.content) for request, _, _ in recorder.exchanges]


def answered(message):
    return [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in message.tool_calls]


@pytest.mark.proves("invoke")
def test_invoke(model):
    message = model("text").invoke([SystemMessage("Be nice."), HumanMessage("hello")])
    assert message.text == "HELLO" and message.usage_metadata["total_tokens"] > 0
    assert message.response_metadata["status"] == "completed"


@pytest.mark.proves("stream")
def test_stream(model):
    whole = AIMessageChunk(content="")
    for chunk in model("reasoning").stream("2+2?"):
        whole += chunk
    assert whole.text == "The answer is 4." and whole.usage_metadata["output_token_details"]["reasoning"] > 0


@pytest.mark.proves("tool round trip")
def test_tools(model, upstream):
    bound = model("o3-stub").bind_tools([get_weather])
    question = HumanMessage("weather?")
    first = bound.invoke([question])
    assert [call["name"] for call in first.tool_calls] == ["get_weather"]
    second = bound.invoke([question, first, *answered(first)])
    assert second.text == "The tool says: sunny in Ada"
    assert upstream.last_body()["messages"][1]["reasoning_content"] == "I think for the 1. time."


@pytest.mark.proves("tool round trip, streamed")
def test_streamed_tools(model):
    bound = model("o3-stub").bind_tools([get_weather])
    question, first = HumanMessage("weather?"), AIMessageChunk(content="")
    for chunk in bound.stream([question]):
        first += chunk
    assert first.tool_calls[0]["args"] == {"city": "Ada"}
    assert "".join(c.text for c in bound.stream([question, first, *answered(first)])) == "The tool says: sunny in Ada"


@pytest.mark.proves("structured output")
def test_structured_output(model):
    assert model("json").with_structured_output(Person).invoke("Who?") == Person(name="Ada", age=36)
    called = model("tools").with_structured_output(Person, method="function_calling").invoke("Who?")
    assert called == Person(name="Ada", age=36)


@pytest.mark.proves("use_previous_response_id")
def test_previous_response_id(model, upstream, recorder):
    chained = model("remember", use_previous_response_id=True)
    history = [HumanMessage("My name is Ada.")]
    history += [chained.invoke(history), HumanMessage("What is my name?")]
    assert chained.invoke(history).text == "Your name is Ada."
    last = sent(recorder)[-1]
    assert last["previous_response_id"] and len(last["input"]) == 1
    assert len(upstream.last_body()["messages"]) == 3


@pytest.mark.proves("reasoning sent back with store=False")
def test_without_retention(model, upstream):
    settings = {"store": False, "include": ["reasoning.encrypted_content"], "truncation": "auto",
                "reasoning": {"effort": "low", "summary": "auto"}}
    chat = model("o3-stub", **settings)
    history = [HumanMessage("one")]
    history += [chat.invoke(history), HumanMessage("two")]
    assert chat.invoke(history).text == "TWO"
    assert upstream.last_body()["messages"][1]["reasoning_content"] == "I think for the 1. time."


@pytest.mark.proves("a prompt that is too long, as its own error")
def test_too_long(model):
    with pytest.raises(ContextOverflowError):
        model("too-long").invoke("x")
