"""The Codex command line through the gateway: it runs commands and applies patches for real, in a scratch folder.

It is installed by npm, in the folder that NODE_PROJECT names.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import nodes
from proven import Client
from serving import REPO

CLIENT = Client("Codex", npm=("@openai/codex",))
pytestmark = pytest.mark.timeout(180)
CONFIG = """
model = "{model}"
model_provider = "gateway"
model_auto_compact_token_limit = 50000
[model_providers.gateway]
name = "{name}"
base_url = "{url}/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


MCP = f"""
[mcp_servers.own]
command = "{sys.executable}"
args = ["{REPO}/tests/it/mcp/stdio.py"]
"""


@pytest.fixture
def codex(gateway, upstream, tmp_path):
    def run(model, *more, config="", name="gateway"):
        home, work = tmp_path / "home", tmp_path / "work"
        home.mkdir()
        work.mkdir()
        (home / "config.toml").write_text(CONFIG.format(model=model, name=name, url=gateway.url) + config)
        program = pathlib.Path(os.environ["NODE_PROJECT"], "node_modules/.bin/codex")
        arguments = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", *more, "Make the file."]
        done = subprocess.run([program, *arguments], cwd=work, stdin=subprocess.DEVNULL, capture_output=True, timeout=150,
                              text=True, env=nodes.environment(CODEX_HOME=str(home), GATEWAY_KEY="any"))
        assert done.returncode == 0, done.stdout + done.stderr
        return done, work
    return run


def told(upstream):
    """What the model was told of each call in the end, and what it had thought before."""
    messages = upstream.last_body()["messages"]
    return [m["content"] for m in messages if m["role"] == "tool"], [m["reasoning_content"] for m in messages if m.get("reasoning_content")]


def check(codex, upstream, model, made, steps):
    done, work = codex(model)
    assert (work / "made.txt").read_text() == made + "\n"
    assert made in done.stdout and "Done: " in done.stdout
    results, thoughts = told(upstream)
    assert len(results) == steps
    # Codex keeps the history: thinking comes back with it, and the model sees it again.
    assert thoughts == [f"I think about step {n}." for n in range(steps)]
    return upstream.requests


@pytest.mark.proves("a shell command, unknown model name")
def test_shell(codex, upstream):
    requests = check(codex, upstream, "codex", "by the shell", 2)
    descriptions = [t["function"]["description"] for t in requests[0].body["tools"]]
    about = "About all functions whose names begin with `multi_agent_v1__`: "
    assert len([d for d in descriptions if about in d]) == 1, "the namespace's own description"


@pytest.mark.proves("a patch and a tool search, gpt-5.5")
def test_patch_and_search(codex, upstream):
    requests = check(codex, upstream, "gpt-5.5", "by a patch", 3)
    shown = [{t["function"]["name"] for t in seen.body["tools"]} for seen in requests]
    late = shown[-1] - shown[0]
    assert late and all(name.startswith("multi_agent_v1__") for name in late), "the search loaded a namespace"
    calls = [c for m in upstream.last_body()["messages"] for c in m.get("tool_calls") or []]
    assert json.loads(calls[0]["function"]["arguments"])["input"].startswith("*** Begin Patch")


@pytest.mark.proves("an output schema, gpt-5.5")
def test_output_schema(codex, upstream, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"made": {"type": "string"}}, "required": ["made"],
                                  "additionalProperties": False}))
    done, work = codex("gpt-5.5", "--output-schema", str(schema))
    assert (work / "made.txt").read_text() == "by a patch\n"
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {"made": "Ada"}
    assert upstream.last_body()["response_format"]["json_schema"]["strict"] is True


@pytest.mark.proves("tools in the input (additional_tools), gpt-5.6-sol")
def test_additional_tools(codex, upstream):
    check(codex, upstream, "gpt-5.6-sol", "by a script", 2)


@pytest.mark.proves("its own MCP server")
def test_mcp(codex, upstream):
    done, _ = codex("codex-mcp", config=MCP)
    (result,), _ = told(upstream)
    assert result in done.stdout and any(line.strip().isdigit() for line in result.splitlines()), result


@pytest.mark.proves("a full context summed up, by itself and by compaction_trigger")
@pytest.mark.parametrize(("name", "summary"), [
    ("gateway", "Another language model started to solve this problem"),  # Codex asks for a summary in words
    ("OpenAI", "Summary of the conversation so far"),  # it asks for an item, whose seal the gateway opens again
])
def test_compaction(codex, upstream, name, summary):
    done, work = codex("codex-long", name=name)
    assert (work / "made.txt").read_text() == "before the summary\n"
    assert "Done, as the summary says." in done.stdout and "context compacted" in done.stderr
    call, summing, last = [seen.body for seen in upstream.requests]
    assert call["tools"] and last["tools"] and not summing.get("tools")
    assert [m["role"] for m in summing["messages"]].count("tool") == 1, "what is summed up"
    assert all(m["role"] in ("system", "user") for m in last["messages"]), "nothing else of it is left"
    assert last["messages"][-1]["content"].startswith(summary)


@pytest.mark.proves("falls back from WebSockets")
def test_websockets(codex, upstream):
    done, work = codex("codex", config="supports_websockets = true\n")
    assert (work / "made.txt").read_text() == "by the shell\n"
    assert "WebSockets are not served" in done.stderr
