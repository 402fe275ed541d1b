"""Where the gateway knowingly differs from the types of the pinned SDK: the whole list.

Nothing else may fail the strict check of `strict.py`. Each entry says why it exists.
"""

# Codes of a failed response that the live API sends and clients act on, but the type lacks.
ERROR_CODES = {"context_length_exceeded", "server_is_overloaded"}

# Open Responses' names of the raw reasoning events, sent only when the operator switches to them.
EVENT_NAMES = {
    "response.reasoning.delta": "response.reasoning_text.delta",
    "response.reasoning.done": "response.reasoning_text.done",
}

# Tools that the SDK does not know are echoed as they came.
UNKNOWN_TOOLS_ARE_ECHOED = True

# Fields beyond the type, by the type's name.
EXTRA_FIELDS = {
    # Open Responses requires these three.
    "Response": {"presence_penalty", "frequency_penalty", "store"},
    # Clients differ in the error shape they read, so the event carries the flat and the nested form.
    "ResponseErrorEvent": {"error"},
    # Older SDKs typed the name of the function here.
    "ResponseFunctionCallArgumentsDoneEvent": {"name"},
    # Its twin in a list of input items must have it.
    "ResponseCustomToolCall": {"status"},
    # Pictures that a tool gave: the type has room for a text only.
    "McpCall": {"images"},
    # The model list is vLLM's own.
    "Model": {"root", "parent", "max_model_len", "permission"},
}

# Fields that the type makes optional and this API always sends (null where it has nothing to say).
ALWAYS_PRESENT = {
    "Response": {
        "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model",
        "previous_response_id", "instructions", "output", "error", "tools", "tool_choice", "truncation",
        "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs",
        "temperature", "reasoning", "usage", "max_output_tokens", "max_tool_calls", "store", "background",
        "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
    },
}
