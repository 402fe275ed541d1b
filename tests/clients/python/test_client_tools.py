"""Client tools of every type: their items and events are the SDK's own, both ways."""

import pytest

import strict

pytestmark = pytest.mark.proves("custom, namespace, search, shell and patch tools")

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
CUSTOM = {"type": "custom", "name": "patch", "description": "Applies a patch.",
          "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}}
NAMESPACE = {"type": "namespace", "name": "files", "description": "Files.", "tools": [
    {"type": "function", "name": "read", "parameters": SCHEMA, "strict": True}]}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": SCHEMA}
FOUND = {"type": "function", "name": "late", "parameters": SCHEMA, "strict": False, "defer_loading": True}


def text(call):
    return {"output": [{"type": "input_text", "text": "done it"}], "call_id": call.call_id}


CASES = {
    "function_call": (NAMESPACE, lambda call: {"type": "function_call_output", **text(call)}),
    "custom_tool_call": (CUSTOM, lambda call: {"type": "custom_tool_call_output", **text(call)}),
    "local_shell_call": ({"type": "local_shell"}, lambda call: {
        "type": "local_shell_call_output", "id": call.call_id, "output": "done it"}),
    "shell_call": ({"type": "shell", "environment": {"type": "local"}}, lambda call: {
        "type": "shell_call_output", "call_id": call.call_id, "output": [
            {"stdout": "done it", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]}),
    "apply_patch_call": ({"type": "apply_patch"}, lambda call: {
        "type": "apply_patch_call_output", "call_id": call.call_id, "status": "completed", "output": "done it"}),
    "tool_search_call": (SEARCH, lambda call: {
        "type": "tool_search_output", "call_id": call.call_id, "execution": "client", "status": "completed",
        "tools": [FOUND]}),
}


def ask(client, stream, **request):
    if not stream:
        return client.responses.create(model="tools", **request)
    return list(client.responses.create(model="tools", stream=True, **request))[-1].response


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_round_trip(client, upstream, kind, stream):
    tool, output_of = CASES[kind]
    first = ask(client, stream, input="go", tools=[tool])
    (call,) = first.output
    assert call.type == kind and call.status == "completed"
    second = ask(client, stream, input=[output_of(call)], previous_response_id=first.id)
    expected = "these tools can be called now: late" if kind == "tool_search_call" else "done it"
    assert expected in second.output_text
    continued = upstream.last_body()
    # The same by full input, as clients that keep their own history send it.
    question = {"role": "user", "content": "go"}
    ask(client, stream, input=[question, call.to_dict(), output_of(call)], store=False)
    assert upstream.last_body() == continued
    # The recorder checks the list against the SDK's types.
    kinds = [item.type for item in client.responses.input_items.list(second.id, order="asc")]
    assert kinds == ["message", kind, output_of(call)["type"]]


def test_names(client):
    (call,) = ask(client, True, input="go", tools=[NAMESPACE]).output
    assert (call.namespace, call.name) == ("files", "read")
    (call,) = ask(client, True, input="go", tools=[CUSTOM]).output
    assert (call.name, call.input) == ("patch", "Ada")


def test_additional_tools_and_configuration(client, upstream):
    items = [{"type": "additional_tools", "role": "developer", "tools": [NAMESPACE]},
             {"role": "user", "content": "go"}, {"type": "configuration_update", "reasoning": {"effort": "low"}}]
    response = ask(client, True, input=items)
    assert response.output[0].namespace == "files"
    assert upstream.last_body()["reasoning_effort"] == "low"
    kinds = [item.type for item in client.responses.input_items.list(response.id, order="asc")]
    assert kinds == ["additional_tools", "message", "configuration_update"]


def test_a_forced_grammar(client, upstream):
    forced = {"type": "custom", "name": "patch"}
    events = list(client.responses.create(model="text", input="go", tools=[CUSTOM], tool_choice=forced, stream=True))
    done = [e.input for e in events if e.type == "response.custom_tool_call_input.done"]
    (call,) = events[-1].response.output
    assert done == [call.input] == ["GO"]
    assert upstream.last_body()["structured_outputs"] == {"grammar": "start: /.+/"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_summaries_and_sealed_reasoning(client, upstream, stream):
    request = {"model": "reasoning", "input": "2+2?", "store": False, "reasoning": {"summary": "auto"},
               "include": ["reasoning.encrypted_content"]}
    if stream:
        first = list(client.responses.create(stream=True, **request))[-1].response
    else:
        first = client.responses.create(**request)
    thought = first.output[0]
    assert thought.summary[0].text == thought.content[0].text == "Two and two make four."
    sealed = {"type": "reasoning", "id": thought.id, "summary": [], "encrypted_content": thought.encrypted_content}
    history = [{"role": "user", "content": "2+2?"}, sealed, first.output[1].to_dict(), {"role": "user", "content": "sure?"}]
    client.responses.create(model="reasoning", input=history, store=False)
    assert upstream.last_body()["messages"][1]["reasoning_content"] == "Two and two make four."


def test_references(client, upstream):
    first = client.responses.create(model="reasoning", input="2+2?")
    references = [{"type": "item_reference", "id": item.id} for item in first.output]
    second = client.responses.create(model="text", input=[*references, {"role": "user", "content": "more"}])
    assert upstream.last_body()["messages"][0]["content"] == "The answer is 4."
    kinds = [item.type for item in client.responses.input_items.list(second.id, order="asc")]
    assert kinds == ["reasoning", "message", "message"]


def test_count(client):
    counted = client.responses.input_tokens.count(model="text", input="one two three", instructions="four")
    assert counted.input_tokens == 4 and counted.object == "response.input_tokens"


@pytest.mark.proves("compaction")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_conversation_is_summed_up_on_request(client, upstream, stream):
    turn = [{"role": "user", "content": "paint it red"}, {"role": "assistant", "content": "painted"}]
    request = {"model": "text", "input": [*turn, {"type": "compaction_trigger"}]}
    if stream:
        response = list(client.responses.create(stream=True, **request))[-1].response
    else:
        response = client.responses.create(**request)
    (summary,) = response.output
    assert summary.type == "compaction"
    after = [turn[0], summary.to_dict(), {"role": "user", "content": "and now?"}]
    client.responses.create(model="tools", input=after)
    told = [message["content"] for message in upstream.last_body()["messages"]]
    assert told[0] == "paint it red" and told[1].startswith("Summary of the conversation so far:\n\n") and len(told) == 3
    client.responses.create(model="text", input="and now?", previous_response_id=response.id)
    assert [message["content"] for message in upstream.last_body()["messages"]] == told


@pytest.mark.proves("compaction")
def test_compact(client, upstream):
    first = client.responses.create(model="text", input="paint it red")
    compacted = client.responses.compact(model="text", previous_response_id=first.id)
    assert compacted.object == "response.compaction" and compacted.usage.output_tokens > 0
    kept, summary = compacted.output
    assert (kept.role, kept.content[0].text, summary.type) == ("user", "paint it red", "compaction")
    client.responses.create(model="text", input=[*(i.to_dict() for i in compacted.output), {"role": "user", "content": "go"}])
    assert len(upstream.last_body()["messages"]) == 3
    strict.validate(strict.ITEM, summary.to_dict(), "compaction")  # the user's messages are no output items to the type
