"""Tool and schema definitions that several tests use."""

from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
CLOCK = WEATHER | {"name": "get_time", "description": "Local time of a city"}


class Person(BaseModel):
    name: str
    age: int


def output_of(call, text):
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}
