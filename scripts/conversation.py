"""A streamed conversation of two turns with the official OpenAI SDK, printed as it arrives.

Turn 2 sends only its new question and the first response's id: that it is answered about the
city of turn 1 shows the state at work. Exits 1 when a turn fails or leaves no text.

usage: conversation.py BASE_URL [MODEL]      BASE_URL ends in /v1; without MODEL the first one served
"""

import os
import sys

from openai import OpenAI, OpenAIError

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


if __name__ == "__main__":
    try:
        main()
    except (OpenAIError, RuntimeError) as problem:
        sys.exit(f"\nerror: the conversation failed: {problem}")
