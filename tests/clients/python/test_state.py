"""Stored responses: continuation, retrieve, delete, input items."""

import pytest
from openai import BadRequestError, NotFoundError

pytestmark = pytest.mark.proves("conversations: continue, retrieve, delete, input items")


def chain(client, *inputs, **request):
    """One response per input, each continuing the one before."""
    responses = []
    for text in inputs:
        previous = {"previous_response_id": responses[-1].id} if responses else {}
        responses.append(client.responses.create(model="remember", input=text, **previous, **request))
    return responses


def test_turn_two_uses_turn_one(client, upstream):
    first, second = chain(client, "My name is Ada.", "What is my name?")
    assert second.output_text == "Your name is Ada."
    assert second.previous_response_id == first.id
    assert [m["role"] for m in upstream.last_body()["messages"]] == ["user", "assistant", "user"]


def test_streamed_turn_two_uses_streamed_turn_one(client):
    with client.responses.stream(model="remember", input="My name is Grace.") as stream:
        first = stream.get_final_response()
    with client.responses.stream(model="remember", input="What is my name?", previous_response_id=first.id) as stream:
        assert stream.get_final_response().output_text == "Your name is Grace."


def test_a_chain_can_branch(client):
    first, second = chain(client, "My name is Ada.", "Good day.")
    branches = [client.responses.create(model="remember", input="What is my name?", previous_response_id=r.id)
                for r in (first, second)]
    assert [b.output_text for b in branches] == ["Your name is Ada."] * 2


def test_instructions_are_this_turn_only(client, upstream):
    first = client.responses.create(model="instructions", input="x", instructions="Be brief.")
    second = client.responses.create(model="instructions", input="y", previous_response_id=first.id)
    assert second.output_text == "none" and second.instructions is None


def test_an_incomplete_response_can_be_continued(client, upstream):
    first = client.responses.create(model="length", input="x")
    second = client.responses.create(model="text", input="go on", previous_response_id=first.id)
    assert second.output_text == "GO ON"
    assert upstream.last_body()["messages"][1]["content"] == "This is cut"


def test_retrieve(client):
    made = client.responses.create(model="reasoning", input="x", metadata={"a": "b"})
    assert client.responses.retrieve(made.id).to_dict() == made.to_dict()


def test_retrieve_gives_what_was_streamed(client):
    with client.responses.stream(model="reasoning", input="x") as stream:
        final = stream.get_final_response()
    kept = client.responses.retrieve(final.id)
    assert [i.to_dict() for i in kept.output] == [i.to_dict() for i in client.responses.retrieve(final.id).output]
    assert kept.output_text == final.output_text and kept.status == "completed" and kept.usage == final.usage


def test_delete(client):
    made = client.responses.create(model="text", input="x")
    client.responses.delete(made.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(NotFoundError):
        client.responses.delete(made.id)
    with pytest.raises(BadRequestError) as error:
        client.responses.create(model="text", input="y", previous_response_id=made.id)
    assert error.value.code == "previous_response_not_found"


def test_store_false_keeps_nothing(client):
    made = client.responses.create(model="text", input="x", store=False)
    assert made.store is False
    with pytest.raises(NotFoundError):
        client.responses.retrieve(made.id)


def test_input_items_are_the_whole_input(client):
    _, second = chain(client, "My name is Ada.", "What is my name?")
    items = list(client.responses.input_items.list(second.id, order="asc"))
    assert [i.role for i in items] == ["user", "assistant", "user"]
    assert items[0].content[0].text == "My name is Ada." and items[0].content[0].type == "input_text"
    newest_first = [i.id for i in client.responses.input_items.list(second.id)]
    assert newest_first == [i.id for i in reversed(items)], "the default order is the newest first"


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_input_items_pages(client, recorder, order):
    texts = [f"item {n}" for n in range(7)]
    made = client.responses.create(model="text", input=[{"role": "user", "content": t} for t in texts])
    pages = list(client.responses.input_items.list(made.id, order=order, limit=3).iter_pages())
    assert [len(p.data) for p in pages] == [3, 3, 1]
    assert [p.has_more for p in pages] == [True, True, False]
    seen = [i.content[0].text for p in pages for i in p.data]
    assert seen == (texts if order == "asc" else texts[::-1])
    after = client.responses.input_items.list(made.id, order=order, after=pages[0].data[0].id, limit=100)
    assert [i.content[0].text for i in after.data] == seen[1:]
    assert recorder.last_body()["first_id"] == after.data[0].id


def test_input_items_errors(client):
    made = client.responses.create(model="text", input="x")
    for limit in (0, 101):
        with pytest.raises(BadRequestError) as error:
            client.responses.input_items.list(made.id, limit=limit)
        assert error.value.param == "limit"
    with pytest.raises(BadRequestError) as error:
        client.responses.input_items.list(made.id, order="sideways")
    assert error.value.param == "order"
    with pytest.raises(NotFoundError):
        client.responses.input_items.list("resp_" + "0" * 32)
