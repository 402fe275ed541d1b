"""Function tools: the round trip both ways, parallel calls, choices."""

import json

import pytest

from tools import CLOCK, WEATHER, output_of

pytestmark = pytest.mark.proves("function tools")


def calls_of(response):
    return [item for item in response.output if item.type == "function_call"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_round_trip_by_previous_response(client, upstream, stream):
    def ask(**request):
        if not stream:
            return client.responses.create(model="tools", **request)
        return list(client.responses.create(model="tools", stream=True, **request))[-1].response

    first = ask(input="Weather in Paris?", tools=[WEATHER])
    (call,) = calls_of(first)
    assert first.status == "completed" and call.name == "get_weather" and json.loads(call.arguments) == {"city": "Paris"}
    second = ask(input=[output_of(call, "18 degrees")], previous_response_id=first.id)
    assert second.output_text == "The tool says: 18 degrees"
    assert [m["role"] for m in upstream.last_body()["messages"]] == ["user", "assistant", "tool"]
    assert second.tools == [], "tools are not inherited"


def test_round_trip_by_full_input(client, upstream):
    history = [{"role": "user", "content": "Weather in Paris?"}]
    first = client.responses.create(model="tools", input=history, tools=[WEATHER], store=False)
    (call,) = calls_of(first)
    history += [item.to_dict() for item in first.output] + [output_of(call, "18 degrees")]
    second = client.responses.create(model="tools", input=history, tools=[WEATHER], store=False)
    assert second.output_text == "The tool says: 18 degrees"
    assert upstream.last_body()["messages"][1]["tool_calls"][0]["function"]["name"] == "get_weather"


def test_both_ways_send_the_same_to_the_model(client, upstream):
    question = {"role": "user", "content": "Weather in Paris?"}
    first = client.responses.create(model="tools", input=[question], tools=[WEATHER])
    output = output_of(calls_of(first)[0], "18 degrees")
    client.responses.create(model="tools", input=[output], previous_response_id=first.id, tools=[WEATHER])
    continued = upstream.last_body()
    client.responses.create(model="tools", input=[question, *(i.to_dict() for i in first.output), output], tools=[WEATHER])
    assert upstream.last_body() == continued


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_parallel_calls(client, upstream, stream):
    request = {"model": "parallel", "input": "Weather and time?", "tools": [WEATHER, CLOCK]}
    if stream:
        first = list(client.responses.create(stream=True, **request))[-1].response
    else:
        first = client.responses.create(**request)
    calls = calls_of(first)
    assert [c.name for c in calls] == ["get_weather", "get_time"]
    assert all(json.loads(c.arguments) == {"city": "Paris"} for c in calls)
    assert len({c.call_id for c in calls}) == len({c.id for c in calls}) == 2
    outputs = [output_of(calls[1], "noon"), output_of(calls[0], "rain")]  # in the other order
    second = client.responses.create(model="parallel", previous_response_id=first.id, input=outputs)
    assert {"noon", "rain"} <= set(second.output_text.replace("The tool says: ", "").split("; "))
    assert len(upstream.last_body()["messages"][1]["tool_calls"]) == 2, "one assistant message holds both"


def test_an_output_may_be_a_list_of_parts(client):
    first = client.responses.create(model="tools", input="x", tools=[WEATHER])
    output = output_of(calls_of(first)[0], [{"type": "input_text", "text": "18 degrees"}])
    second = client.responses.create(model="tools", previous_response_id=first.id, input=[output])
    assert second.output_text == "The tool says: 18 degrees"


def test_choice_and_strict_are_sent_as_asked(client, upstream):
    named = {"type": "function", "name": "get_time"}
    response = client.responses.create(model="tools", input="x", tools=[WEATHER, CLOCK], tool_choice=named)
    sent = upstream.last_body()
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "get_time"}}
    assert [t["function"]["strict"] for t in sent["tools"]] == [True, True]
    assert calls_of(response)[0].name == "get_time" and response.status == "completed"
    assert response.tool_choice.name == "get_time" and [t.name for t in response.tools] == ["get_weather", "get_time"]
    none = client.responses.create(model="tools", input="x", tools=[WEATHER], tool_choice="none")
    assert none.output_text == "I have no tools." and none.tool_choice == "none"


def test_stream_helper_gives_arguments(client):
    with client.responses.stream(model="tools", input="x", tools=[WEATHER]) as stream:
        snapshots = [e.snapshot for e in stream if e.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert json.loads(snapshots[-1]) == {"city": "Paris"}
    assert calls_of(final)[0].parsed_arguments == {"city": "Paris"}
