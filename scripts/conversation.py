"""A streamed conversation with the official OpenAI SDK, a call of a function, and Python.

Turn 2 sends only its new question and the first response's id: that it is answered about the
city of turn 1 shows the state at work. Then the model is asked to call a function of the client's,
and to run Python in the gateway's code interpreter. Exits 1 when a turn fails or leaves no text; a
small model that writes a wrong call is not a failure.

usage: conversation.py BASE_URL [MODEL]      BASE_URL ends in /v1; without MODEL the first one served
"""

import os
import sys

from openai import APIStatusError, OpenAI, OpenAIError

QUESTIONS = (
    "What is the capital of France? Answer in one sentence.",
    "What is that city famous for? Answer in one sentence.",
)


def turn(client, model, question, previous):
    """Streams one turn to the terminal; gives the finished response."""
    print(f"\n  you   > {question}")
    print("  model > ", end="", flush=True)
    extra = {"previous_response_id": previous.id} if previous else {}
    with client.responses.stream(model=model, input=question, temperature=0, max_output_tokens=120, **extra) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
        response = stream.get_final_response()
    link = f", previous_response_id {previous.id}" if previous else ""
    print(f"\n          [{response.id}, {response.usage.input_tokens} tokens in, {response.usage.output_tokens} out{link}]")
    return response


WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
PYTHON = {"type": "code_interpreter", "container": {"type": "auto"}}


def one_line(text, longest=100):
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def with_tool(client, model, question, **request):
    """Asks for a call and prints what came of it."""
    print(f"\n  you   > {question}")
    settings = {"temperature": 0, "max_output_tokens": 120, **request}
    response = client.responses.create(model=model, input=question, **settings)
    calls = 0
    for item in response.output:
        if item.type == "function_call":
            calls += 1
            print(f"  model > calls {item.name}({one_line(item.arguments)})")
        elif item.type == "code_interpreter_call":
            calls += 1
            print(f"  model > runs in Python: {one_line(item.code or '')}")
            for output in item.outputs or []:
                if output.type == "logs":
                    print(f"  Python> {one_line(output.logs)}")
    if response.output_text:
        print(f"  model > {one_line(response.output_text)}")
    if not calls:
        print("          [this model made no call; larger ones do]")


def main():
    base_url = sys.argv[1]
    client = OpenAI(base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY", "none"), timeout=300)
    model = sys.argv[2] if len(sys.argv) > 2 else client.models.list().data[0].id
    print(f"\nConversation with {model} through {base_url}")
    previous = None
    for question in QUESTIONS:
        previous = turn(client, model, question, previous)
        if not previous.output_text:
            sys.exit("error: the answer had no text")
    print("\nA function of the client's, which the model calls")
    call = {"type": "function", "name": "get_weather"}
    with_tool(client, model, "What is the weather in Paris?", tools=[WEATHER], tool_choice=call)
    print("\nPython, which the gateway runs in its code interpreter")
    try:
        # One call is enough to show it: a small model would go on for ever.
        with_tool(client, model, "Compute 2+2.", tools=[PYTHON], include=["code_interpreter_call.outputs"],
                  tool_choice={"type": "code_interpreter"}, max_tool_calls=1)
    except APIStatusError as problem:
        print(f"          [not shown: {one_line(problem.message)}]")


if __name__ == "__main__":
    try:
        main()
    except (OpenAIError, RuntimeError) as problem:
        sys.exit(f"\nerror: the conversation failed: {problem}")
