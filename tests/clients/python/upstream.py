"""A small scripted chat-completions server, for tests of the gateway with real clients.

The model's name chooses the behaviour (see MODELS), so a client needs nothing but a model name
to get reasoning, parallel tool calls, a refusal, a late error or silence. Answers are
deterministic and depend only on the messages, so "turn 2 uses turn 1" can be seen.
Every request is checked against what vLLM insists on; a violation is a 400 here and is kept
in `Upstream.violations`. Standard library only.

usage: upstream.py [PORT]      serves on 127.0.0.1, prints its address, until it is stopped
"""

import json
import re
import select
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODELS = {
    "text": "repeats the last user message in capitals",
    "remember": "knows the name given earlier as `my name is NAME`",
    "instructions": "repeats the system message",
    "reasoning": "thinks in `reasoning`, then answers",
    "reasoning-content": "the same in the older field `reasoning_content`",
    "tools": "calls the first tool, then reports its result",
    "parallel": "calls each tool once, argument pieces interleaved",
    "python": "calls the code interpreter with the last user message, then says what it gave",
    "json": "writes the object that the JSON schema asks for",
    "image": "says which image it was given",
    "logprobs": "answers with log probabilities",
    "refusal": "refuses",
    "length": "is cut by the token limit",
    "too-long": "400: the prompt is longer than the context",
    "busy": "429",
    "broken": "500",
    "late-error": "an error object inside a stream that began with 200",
    "cut": "drops the connection in the middle of a stream",
    "silent": "sends nothing until the client leaves",
    "o3-stub": "thinks, then calls its first tool, or repeats what it was told or shown",
    "gpt-5.4": "repeats the last user message in capitals, under a name that clients take for OpenAI's",
    "codex": "leads Codex through a shell command and a namespaced tool",
    "codex-long": "leads Codex through a shell command that fills its context, so that it has the conversation summed up",
    "codex-mcp": "leads Codex through a tool of an MCP server that it runs",
    "gpt-5.5": "leads Codex through a patch, a tool search and a shell command",
    "gpt-5.6-sol": "leads Codex through its script tool",
}


@dataclass
class Seen:
    """One request as it came, and how its connection ended."""

    body: dict
    left: threading.Event = field(default_factory=threading.Event)  # the client went away first


@dataclass
class Answer:
    """What the model says, before it is put on the wire."""

    text: str = ""
    reasoning: str = ""
    reasoning_field: str = "reasoning"
    refusal: str = ""
    calls: list = field(default_factory=list)  # (call id, name, arguments)
    finish: str = "stop"
    logprobs: bool = False
    prompt_tokens: int = 0  # told instead of counting


class BadRequest(Exception):
    """The gateway sent what vLLM would refuse."""


def text_of(content):
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def last(messages, role):
    found = [m for m in messages if m["role"] == role]
    return found[-1] if found else {"content": ""}


def check(body):
    """The rules of vLLM's chat template and parser that a wrong history breaks."""
    messages = body.get("messages")
    if not messages:
        raise BadRequest("messages must not be empty")
    open_calls = set()
    for index, message in enumerate(messages):
        role = message["role"]
        if role not in ("system", "user", "assistant", "tool"):
            raise BadRequest(f"message {index} has an unknown role")
        if role == "system" and index != 0:
            raise BadRequest(f"message {index}: the system message must come first")
        if role == "tool":
            if message["tool_call_id"] not in open_calls:
                raise BadRequest(f"message {index}: tool output without a call before it")
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            raise BadRequest(f"message {index}: a tool call before it has no output")
        for call in message.get("tool_calls") or []:
            json.loads(call["function"]["arguments"])
            open_calls.add(call["id"])
    if open_calls:
        raise BadRequest("a tool call has no output")
    if body.get("stream_options") and not body.get("stream"):
        raise BadRequest("stream_options without stream")
    for tool in body.get("tools") or []:
        if tool.get("type") != "function" or not tool["function"].get("name"):
            raise BadRequest("a tool is not a named function")


def example(schema):
    """A value that fits a JSON schema of objects, arrays and scalars."""
    if "$ref" in schema:
        return None
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: example(sub) for name, sub in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}))]
    return {"integer": 36, "number": 1.5, "boolean": True, "null": None}.get(kind, "Ada")


def called(body, tools):
    return [(f"call_{i}", t["function"]["name"], json.dumps(example(t["function"].get("parameters") or {"type": "object"})))
            for i, t in enumerate(tools)]


def answer_remember(messages):
    said = " ".join(text_of(m.get("content")) for m in messages if m["role"] == "user")
    name = re.search(r"my name is (\w+)", said, re.I)
    asked = "what is my name" in text_of(last(messages, "user").get("content")).lower()
    if not asked:
        return Answer(text="Nice to meet you.")
    return Answer(text=f"Your name is {name[1]}." if name else "You have not told me your name.")


def answer_tools(body):
    messages, tools = body["messages"], body.get("tools") or []
    if messages[-1]["role"] == "tool":
        results = [text_of(m["content"]) for m in messages if m["role"] == "tool"]
        return Answer(text="The tool says: " + "; ".join(results))
    if not tools or body.get("tool_choice") == "none":
        return Answer(text="I have no tools.")
    choice = body.get("tool_choice")
    if isinstance(choice, dict):  # vLLM finishes a named call with `stop`
        tools = [t for t in tools if t["function"]["name"] == choice["function"]["name"]]
        return Answer(calls=called(body, tools[:1]))
    return Answer(calls=called(body, tools if body["model"] == "parallel" else tools[:1]), finish="tool_calls")


def answer_o3(body):
    """Its name makes clients take it for a reasoning model."""
    messages = body["messages"]
    if body.get("response_format"):
        said = answer_json(body)
    elif body.get("tools") and body.get("tool_choice") != "none" or messages[-1]["role"] == "tool":
        said = answer_tools(body)
    else:
        said = Answer(text=text_of(last(messages, "user").get("content")).upper() or "NOTHING")
    said.reasoning = f"I think for the {sum(m['role'] == 'assistant' for m in messages) + 1}. time."
    return said


def answer_python(body, asked):
    if body["messages"][-1]["role"] == "tool":
        return Answer(text="It gave: " + text_of(body["messages"][-1]["content"]))
    named = [t["function"]["name"] for t in body.get("tools") or [] if "code_interpreter" in t["function"]["name"]]
    if not named:
        return Answer(text="I have no interpreter.")
    return Answer(calls=[("call_0", named[0], json.dumps({"code": asked}))], finish="tool_calls")


# What the model calls, one step a round. Codex chooses its tools by the model's name.
CODEX_STEPS = {
    "codex": [
        ("exec_command", {"cmd": "echo by the shell > made.txt; cat made.txt"}),
        ("multi_agent_v1__wait_agent", {"targets": ["nobody"]}),
    ],
    "codex-mcp": [("mcp__own__pid", {})],
    "gpt-5.5": [
        ("apply_patch", {"input": "*** Begin Patch\n*** Add File: made.txt\n+by a patch\n*** End Patch\n"}),
        ("tool_search", {"query": "agent"}),
        ("exec_command", {"cmd": "cat made.txt"}),
    ],
    "gpt-5.6-sol": [
        ("functions__exec", {"input": 'text(JSON.stringify(await tools.exec_command({cmd: "echo by a script > made.txt; cat made.txt"})));'}),
        ("collaboration__list_agents", {}),
    ],
}


def answer_codex(body):
    results = [text_of(m["content"]) for m in body["messages"] if m["role"] == "tool"]
    steps = CODEX_STEPS[body["model"]]
    if len(results) == len(steps):
        if body.get("response_format"):
            return answer_json(body)
        return Answer(text="Done: " + " | ".join(results))
    name, arguments = steps[len(results)]
    return Answer(reasoning=f"I think about step {len(results)}.", finish="tool_calls",
                  calls=[(f"call_{len(results)}", name, json.dumps(arguments))])


CODEX_SUMMARY = "Made so far: made.txt."


def answer_codex_long(body):
    """A context that is full once, so that the summary of it is asked for once."""
    if not body.get("tools"):
        return Answer(text=CODEX_SUMMARY)
    if any(CODEX_SUMMARY in text_of(m.get("content")) for m in body["messages"]):
        return Answer(text="Done, as the summary says.")
    command = {"cmd": "echo before the summary > made.txt"}
    return Answer(calls=[("call_0", "exec_command", json.dumps(command))], finish="tool_calls", prompt_tokens=90_000)


def answer_image(messages):
    parts = last(messages, "user").get("content")
    urls = [p["image_url"]["url"] for p in parts if p["type"] == "image_url"] if isinstance(parts, list) else []
    return Answer(text=f"I see {len(urls)}: " + " ".join(u[:40] for u in urls))


def answer_json(body):
    schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    return Answer(text=json.dumps(example(schema) if schema else {"answer": "Ada"}))


def answer(body):
    model, messages = body["model"], body["messages"]
    asked = text_of(last(messages, "user").get("content"))
    if model == "remember":
        return answer_remember(messages)
    if model == "o3-stub":
        return answer_o3(body)
    if model in ("tools", "parallel"):
        return answer_tools(body)
    if model == "python":
        return answer_python(body, asked)
    if model == "codex-long":
        return answer_codex_long(body)
    if model in CODEX_STEPS:
        return answer_codex(body)
    if model == "json":
        return answer_json(body)
    if model == "image":
        return answer_image(messages)
    if model == "instructions":
        return Answer(text=text_of(messages[0]["content"]) if messages[0]["role"] == "system" else "none")
    if model.startswith("reasoning"):
        name = "reasoning_content" if model == "reasoning-content" else "reasoning"
        return Answer(text="The answer is 4.", reasoning="Two and two make four.", reasoning_field=name)
    if model == "refusal":
        return Answer(refusal="I cannot help with that.")
    if model == "length":
        return Answer(text="This is cut", finish="length")
    return Answer(text=asked.upper(), logprobs=bool(body.get("logprobs")))


def pieces(text, size=5):
    return [text[i:i + size] for i in range(0, len(text), size)]


def logprobs_of(text):
    top = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in ((text, -0.25), ("other", -2.0))]
    return {"content": [{**top[0], "top_logprobs": top}]}


def usage(body, said):
    prompt = said.prompt_tokens or sum(len(text_of(m.get("content")).split()) for m in body["messages"]) + 3 * len(body["messages"])
    completion = len(pieces(said.reasoning)) + len(pieces(said.text)) + len(said.calls)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": len(pieces(said.reasoning))}}


def envelope(body, kind):
    return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": body["model"]}


def whole(body, said):
    message = {"role": "assistant", "content": said.text or None}
    if said.refusal:
        message["refusal"] = said.refusal
    if said.reasoning:
        message[said.reasoning_field] = said.reasoning
    if said.calls:
        message["tool_calls"] = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}}
                                 for i, n, a in said.calls]
    choice = {"index": 0, "message": message, "finish_reason": said.finish}
    if said.logprobs:
        choice["logprobs"] = {"content": [logprobs_of(p)["content"][0] for p in pieces(said.text)]}
    return {**envelope(body, "chat.completion"), "choices": [choice], "usage": usage(body, said)}


def deltas(said):
    """(delta, logprobs) in the order of the wire; argument pieces of parallel calls interleave."""
    yield {"role": "assistant", "content": ""}, None
    for piece in pieces(said.reasoning):
        yield {said.reasoning_field: piece}, None
    for piece in pieces(said.text):
        yield {"content": piece}, logprobs_of(piece) if said.logprobs else None
    for piece in pieces(said.refusal):
        yield {"refusal": piece}, None
    for index, (call_id, name, _) in enumerate(said.calls):
        yield {"tool_calls": [{"index": index, "id": call_id, "type": "function",
                               "function": {"name": name, "arguments": ""}}]}, None
    cut = [pieces(arguments) for _, _, arguments in said.calls]
    for round_ in range(max(map(len, cut), default=0)):
        for index, parts in enumerate(cut):
            if round_ < len(parts):
                yield {"tool_calls": [{"index": index, "function": {"arguments": parts[round_]}}]}, None


def chunks(body, said):
    head = envelope(body, "chat.completion.chunk")
    for delta, logprobs in deltas(said):
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        yield {**head, "choices": [choice | ({"logprobs": logprobs} if logprobs else {})]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": said.finish}]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": usage(body, said)}


def error(message, kind, code, param=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


ERRORS = {
    "too-long": (400, error("This model's maximum context length is 2048 tokens. However, your request has 3001 input "
                            "tokens. Please reduce the length of the input messages.", "BadRequestError", 400, "input_tokens")),
    "busy": (429, error("too many requests", "RateLimitError", 429)),
    "broken": (500, error("engine died", "InternalServerError", 500)),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/v1/models":
            self.send_json(200, {"object": "list", "data": [
                {"id": m, "object": "model", "created": 1_700_000_000, "owned_by": "vllm", "root": m, "parent": None,
                 "max_model_len": 2048, "permission": []} for m in MODELS]})
        elif self.path == "/health":
            self.send_json(200, {})
        elif self.path == "/scripted":  # for tests in other processes
            upstream = self.server.upstream
            self.send_json(200, {"requests": [seen.body for seen in upstream.requests], "violations": upstream.violations})
        else:
            self.send_json(404, {"detail": "Not Found"})

    def do_DELETE(self):
        self.server.upstream.clear()
        self.send_json(200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        if self.path == "/tokenize":
            words = sum(len(text_of(m.get("content")).split()) for m in body["messages"])
            return self.send_json(200, {"count": words, "max_model_len": 2048, "tokens": [1] * words})
        if self.path != "/v1/chat/completions":
            return self.send_json(404, {"detail": "Not Found"})
        seen = Seen(body)
        self.server.upstream.requests.append(seen)
        if body.get("model") not in MODELS:
            return self.send_json(404, error("The model does not exist.", "NotFoundError", 404, "model"))
        try:
            check(body)
        except (BadRequest, KeyError, TypeError, ValueError) as problem:
            self.server.upstream.violations.append(f"{type(problem).__name__}: {problem}")
            return self.send_json(400, error(str(problem), "BadRequestError", 400))
        if body["model"] in ERRORS:
            return self.send_json(*ERRORS[body["model"]])
        if body["model"] == "silent":
            return self.wait_for_leave(seen)
        if body.get("stream"):
            return self.stream(body)
        if body["model"] in ("cut", "late-error"):
            return self.send_json(*ERRORS["broken"])
        return self.send_json(200, whole(body, answer(body)))

    def send_json(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, body):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for index, chunk in enumerate(chunks(body, answer(body))):
            if index == 2 and body["model"] == "cut":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if index == 2 and body["model"] == "late-error":
                self.event(json.dumps(error("engine died", "InternalServerError", 500)))
                break
            self.event(json.dumps(chunk))
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, data):
        frame = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(frame), frame))
        self.wfile.flush()

    def wait_for_leave(self, seen):
        self.close_connection = True
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not self.server.upstream.stopping.is_set():
            if select.select([self.connection], [], [], 0.05)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                seen.left.set()
                return


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):  # a client that left is no news here
        if not isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Upstream:
    """The server on a thread of its own."""

    def __init__(self, port=0):
        self.requests, self.violations, self.stopping = [], [], threading.Event()
        self.server = Server(("127.0.0.1", port), Handler)
        self.server.upstream = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def last_body(self):
        return self.requests[-1].body

    def clear(self):
        self.requests.clear()
        self.violations.clear()

    def stop(self):
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    upstream = Upstream(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(upstream.url, flush=True)
    upstream.thread.join()
