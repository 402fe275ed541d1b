"""The OpenAI Agents SDK for Python: its runner drives the gateway, its tools really run."""

import asyncio
import json
import os
import sys

import httpx2
import pytest
from agents import (Agent, CodeInterpreterTool, HostedMCPTool, ModelSettings, OpenAIResponsesCompactionSession,
                    OpenAIResponsesModel, Runner, SQLiteSession, function_tool, set_tracing_disabled)
from openai import AsyncOpenAI
from openai.types.shared import Reasoning
from pydantic import BaseModel

from proven import Client
from recorder import SETTINGS, AsyncRecordingTransport
from serving import REPO, Gateway

CLIENT = Client("OpenAI Agents SDK (Python)", python="openai-agents")
set_tracing_disabled(True)  # it would send traces to OpenAI


@function_tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


class City(BaseModel):
    city: str


@pytest.fixture
def model(gateway, upstream, recorder):
    """Makes the SDK's model; `at` is another gateway."""
    def make(name, at=gateway):
        http = httpx2.AsyncClient(transport=AsyncRecordingTransport(recorder))
        return OpenAIResponsesModel(name, openai_client=AsyncOpenAI(base_url=at.url + "/v1", http_client=http, **SETTINGS))
    return make


def run(agent, text="weather?", **more):
    return asyncio.run(Runner.run(agent, text, **more))


def kinds(result):
    return [item.type for item in result.new_items]


def helper(model, **more):
    return Agent(name="Helper", instructions="Be nice.", model=model("o3-stub"), tools=[get_weather], **more)


LOOP = ["reasoning_item", "tool_call_item", "tool_call_output_item", "reasoning_item", "message_output_item"]


@pytest.mark.proves("tool loop")
def test_tool_loop(model, upstream):
    result = run(helper(model))
    assert result.final_output == "The tool says: sunny in Ada" and kinds(result) == LOOP
    # The SDK sends the whole history back, with reasoning.
    assert upstream.last_body()["messages"][2]["reasoning_content"] == "I think for the 1. time."


@pytest.mark.proves("tool loop, streamed")
def test_streamed_tool_loop(model):
    async def scenario():
        result = Runner.run_streamed(helper(model), "weather?")
        deltas = [event.data.delta async for event in result.stream_events()
                  if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"]
        return result, "".join(deltas)

    result, text = asyncio.run(scenario())
    assert text == result.final_output == "The tool says: sunny in Ada" and kinds(result) == LOOP


@pytest.mark.proves("structured output")
def test_structured_output(model):
    assert run(Agent(name="Asker", model=model("json"), output_type=City)).final_output == City(city="Ada")


@pytest.mark.proves("handoff")
def test_handoff(model, upstream):
    expert = Agent(name="Expert", model=model("text"), handoff_description="Knows more.")
    result = run(Agent(name="Router", instructions="Route.", model=model("tools"), handoffs=[expert]))
    assert result.last_agent is expert and result.final_output == "WEATHER?"
    assert kinds(result)[:2] == ["handoff_call_item", "handoff_output_item"]
    assert [m["role"] for m in upstream.last_body()["messages"]] == ["user", "assistant", "tool"]


@pytest.mark.proves("auto_previous_response_id")
def test_previous_response_id(model, upstream, recorder):
    result = run(helper(model), auto_previous_response_id=True)
    assert result.final_output == "The tool says: sunny in Ada"
    (_, second) = [json.loads(request.content) for request, _, _ in recorder.exchanges]
    assert second["previous_response_id"] and [item["type"] for item in second["input"]] == ["function_call_output"]
    assert [m["role"] for m in upstream.last_body()["messages"]] == ["system", "user", "assistant", "tool"]


@pytest.mark.proves("reasoning sent back with store=False")
def test_without_retention(model, upstream):
    settings = ModelSettings(store=False, response_include=["reasoning.encrypted_content"],
                             reasoning=Reasoning(effort="low", summary="auto"), parallel_tool_calls=True,
                             metadata={"a": "b"})
    result = run(helper(model, model_settings=settings))
    assert result.final_output == "The tool says: sunny in Ada"
    assert upstream.last_body()["reasoning_effort"] == "low"
    assert upstream.last_body()["messages"][2]["reasoning_content"] == "I think for the 1. time."


@pytest.mark.proves("hosted code interpreter")
@pytest.mark.skipif(not os.environ.get("TEST_INTERPRETER_BUNDLE"), reason="no interpreter: TEST_INTERPRETER_BUNDLE is not set")
def test_code_interpreter(model):
    tool = CodeInterpreterTool({"type": "code_interpreter", "container": {"type": "auto"}})
    result = run(Agent(name="Coder", model=model("python"), tools=[tool]), "print(6 * 7)")
    assert "42" in result.final_output
    assert [item.type for item in result.raw_responses[0].output] == ["code_interpreter_call", "message"]


@pytest.mark.proves("hosted MCP server")
def test_mcp(model, upstream, upstream_server, tmp_path):
    server = {"command": sys.executable, "args": [str(REPO / "tests/it/mcp/stdio.py")]}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"own": server}}))
    gateway = Gateway(tmp_path, upstream_server.url, VR_MCP_CONFIG_PATH=str(config))
    tool = HostedMCPTool({"type": "mcp", "server_label": "own", "allowed_tools": ["pid"], "require_approval": "never"})
    try:
        result = run(Agent(name="Caller", model=model("tools", gateway), tools=[tool]))
    finally:
        gateway.stop()
    kinds = [item.type for item in result.raw_responses[0].output]
    assert kinds == ["mcp_list_tools", "mcp_call", "message"]
    assert result.final_output.removeprefix("The tool says: ").isdigit()


@pytest.mark.proves("compaction session")
def test_compaction(model, upstream):
    gpt = model("gpt-5.4")
    session = OpenAIResponsesCompactionSession("s", SQLiteSession("s"), client=gpt._client, model="gpt-5.4",
                                               should_trigger_compaction=lambda _: True)

    async def scenario():
        agent = Agent(name="Talker", model=gpt)
        await Runner.run(agent, "paint it red", session=session)
        kept = [item["type"] for item in await session.get_items()]
        return kept, (await Runner.run(agent, "and now?", session=session)).final_output

    kept, said = asyncio.run(scenario())
    assert kept[-1] == "compaction" and said == "AND NOW?"
    told = [m["content"] for seen in upstream.requests for m in seen.body["messages"]]
    assert any(text.startswith("Summary of the conversation so far:") for text in told)
