"""The strict check: every body and event against the official SDK's own types, and the stream's order.

The SDK itself is lenient (it builds whatever arrives), so a test that merely uses it proves
little. Here pydantic validates in strict mode, and fields that the types do not know, or that
must always be there, are errors too, but for the list in `exceptions.py`.
"""

import copy
import json
from typing import get_args

from openai.types.responses import Response, ResponseItemList, ResponseOutputItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

import exceptions

EVENT = TypeAdapter(ResponseStreamEvent)
ITEM = TypeAdapter(ResponseOutputItem)
EVENT_CLASSES = {get_args(c.model_fields["type"].annotation)[0]: c for c in get_args(get_args(ResponseStreamEvent)[0])}
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
KNOWN_TOOLS = {"function", "custom", "namespace", "tool_search", "mcp", "web_search", "web_search_preview", "file_search",
               "code_interpreter", "image_generation", "computer", "shell", "local_shell", "apply_patch"}


class NotStrict(AssertionError):
    """A body or event that the official types do not describe."""


def fail(what, path, data):
    raise NotStrict(f"{path}: {what}\n{json.dumps(data, indent=1)[:3000]}")


def known(value, path):
    """Walks a validated model; gives the first field that its type does not have."""
    if isinstance(value, BaseModel):
        name = type(value).__name__
        extra = set(value.model_extra or {}) - exceptions.EXTRA_FIELDS.get(name, set())
        if extra:
            return f"{path}: {name} has no field {sorted(extra)}"
        missing = exceptions.ALWAYS_PRESENT.get(name, set()) - value.model_fields_set - set(value.model_extra or {})
        if missing:
            return f"{path}: {name} lacks {sorted(missing)}"
        parts = ((f"{path}.{field}", getattr(value, field)) for field in value.model_fields_set)
    elif isinstance(value, list):
        parts = ((f"{path}[{i}]", sub) for i, sub in enumerate(value))
    else:
        return None
    return next(filter(None, (known(sub, where) for where, sub in parts)), None)


def without_exceptions(data):
    """A copy in which the named deviations look like their typed neighbours."""
    data = copy.deepcopy(data)
    data["type"] = exceptions.EVENT_NAMES.get(data.get("type"), data.get("type"))
    if data["type"] is None:
        del data["type"]
    for resource in (data, data.get("response")):
        if not isinstance(resource, dict) or resource.get("object") != "response":
            continue
        if (resource.get("error") or {}).get("code") in exceptions.ERROR_CODES:
            resource["error"]["code"] = "server_error"
        if exceptions.UNKNOWN_TOOLS_ARE_ECHOED and "tools" in resource:
            resource["tools"] = [t for t in resource["tools"] if t.get("type") in KNOWN_TOOLS]
    return data


def validate(kind, data, path):
    """`kind` is a pydantic class or adapter; gives the validated model."""
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        model = adapter.validate_python(without_exceptions(data), strict=True)
    except ValidationError as problem:
        fail(str(problem), path, data)
    problem = known(model, path)
    if problem:
        fail("unknown or missing field", problem, data)
    return model


def check_response(data, path="response"):
    response = validate(Response, data, path)
    for index, item in enumerate(data["output"]):
        validate(ITEM, item, f"{path}.output[{index}]")
    return response


def check_items(data):
    return validate(ResponseItemList, data, "input_items")


def check_event(data):
    kind = EVENT_CLASSES.get(exceptions.EVENT_NAMES.get(data["type"], data["type"]))
    if kind is None:
        fail("unknown event type", data["type"], data)
    validate(kind, data, data["type"])  # its own class first: a readable message
    EVENT.validate_python(without_exceptions(data), strict=True)
    if "response" in data:
        check_response(data["response"], f"{data['type']}.response")
    if "item" in data:
        validate(ITEM, data["item"], f"{data['type']}.item")


def parse_sse(raw):
    """(event name, data text) of each frame; comment lines are skipped."""
    frames = []
    for block in raw.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        assert set(fields) <= {"event", "data"}, f"unexpected line in frame: {lines}"
        frames.append((fields.get("event"), fields["data"]))
    return frames


def check_stream(raw, whole=True):
    """Checks all bytes of one stream; `whole` is false when the client left before its end.

    The SDK stops reading at `[DONE]`, so a stream that has it is whole even if its end was not read.
    """
    frames = parse_sse(raw)
    whole = whole or frames[-1:] == [(None, "[DONE]")]
    if whole:
        assert frames[-1] == (None, "[DONE]"), "the stream must end with [DONE]"
    events = []
    for name, data in frames:
        if data == "[DONE]":
            continue
        event = json.loads(data)
        assert name == event["type"], f"event line {name} of a {event['type']}"
        check_event(event)
        events.append(event)
    check_order(events, whole)
    return events


def check_order(events, whole=True):
    """The rules that hold for every stream, whatever it carries."""
    types = [e["type"] for e in events]
    assert [e["sequence_number"] for e in events] == list(range(len(events))), "sequence numbers must be dense from 0"
    assert types[0] in ("response.created", "response.queued"), f"first event {types[0]}"
    assert sum(t in TERMINAL for t in types) == (1 if whole else 0), f"terminal events: {types}"
    assert not whole or types[-1] in TERMINAL, f"last event {types[-1]}"
    assert len({e["response"]["id"] for e in events if "response" in e}) == 1, "one response id"
    items = Items()
    for event in events:
        items.take(event)
    if whole:
        items.finish(events[-1]["response"])


class Items:
    """Rebuilds the output from the events and compares it with what the server says it is."""

    TEXTS = {"response.output_text": "text", "response.refusal": "refusal", "response.reasoning_text": "text",
             "response.function_call_arguments": "arguments", "response.reasoning_summary_text": "text",
             "response.custom_tool_call_input": "input"}

    def __init__(self):
        self.open, self.done, self.texts, self.parts = {}, {}, {}, set()

    def take(self, event):
        kind = exceptions.EVENT_NAMES.get(event["type"], event["type"])
        if kind == "response.output_item.added":
            assert event["output_index"] == len(self.open) + len(self.done), "output_index must rise by one"
            self.open[event["output_index"]] = event["item"]["id"]
        elif kind == "response.output_item.done":
            assert self.open.pop(event["output_index"]) == event["item"]["id"], "an item's id must not change"
            self.done[event["output_index"]] = event["item"]
        elif "item_id" in event:
            assert self.open.get(event["output_index"]) == event["item_id"], f"{kind} outside its item"
            self.take_part(kind, event)

    def take_part(self, kind, event):
        # Content and summary of a reasoning item are numbered apart, and may be open at the same time.
        key = (event["output_index"], event.get("content_index", event.get("summary_index")), "summary_index" in event)
        if kind.endswith("_part.added"):
            assert key not in self.parts, "a part was added twice"
            self.parts.add(key)
        elif kind.endswith("_part.done"):
            self.parts.remove(key)
        stem, _, step = kind.rpartition(".")
        if stem not in self.TEXTS:
            return
        assert key[1] is None or key in self.parts, f"{kind} outside its part"
        if step == "delta":
            self.texts[stem, key] = self.texts.get((stem, key), "") + event["delta"]
        else:
            joined = self.texts.pop((stem, key), "")
            assert joined == event[self.TEXTS[stem]], f"{kind}: joined deltas differ from the whole"

    def finish(self, response):
        assert not self.open and not self.parts and not self.texts, "something was opened and never done"
        output = [self.done[index] for index in sorted(self.done)]
        assert output == response["output"], "the final output differs from the items that were done"
