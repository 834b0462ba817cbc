"""What a request for tokens may say: one row per field, for chat and for completions.

Every field that a client sends is either read by a row of FIELDS, or named in UNBUILT and refused unless it
asks for nothing, or unknown and refused. Null is as good as absent, as OpenAI's clients use it.
"""

import difflib
from typing import Any

import attrs

from mesh.attempt import BAD_WORDS_MAX, STOPS_MAX, Parameters, Segment
from mesh.frames import IDS_MAX
from node.errors import RequestError
from node.http import conversation, fields, grammar
from node.http.conversation import TEXT_CHARACTERS_MAX, ToolUse
from node.http.fields import Reader, flag, integer, label, number
from node.http.limits import CHOICES_MAX, LOGPROBS_MAX, N_MAX, STOP_CHARACTERS_MAX

TOKENS_MAX = 2**32 - 1
TOKEN_ID_MAX = 2**32 - 1
REPETITION_PENALTY_MIN = 0.01
"""Logits are divided by it: by less they could leave the range in which fp32 tells them apart."""

BAD_WORD_CHARACTERS_MAX = 256
"""Longest forbidden word."""

COMPLETION_TOKENS = 16
"""OpenAI's and vLLM's default of `max_tokens` for completions; a chat goes on until the model ends it."""


@attrs.frozen
class Row:
    """One field: how it is read, what it is when absent, and which of the two requests has it."""

    read: Reader
    default: Any = None
    chat: bool = True
    completions: bool = True


stop_string = fields.string(STOP_CHARACTERS_MAX, 1)

FIELDS: dict[str, Row] = {
    "model": Row(label),
    "messages": Row(conversation.read_messages, completions=False),
    "prompt": Row(lambda name, value: read_prompts(name, value), chat=False),
    "n": Row(integer(1, N_MAX), 1),
    "stream": Row(flag, False),
    "resumable": Row(flag, False),
    "stream_options": Row(lambda name, value: read_stream_options(name, value), False),
    "max_tokens": Row(integer(1, TOKENS_MAX)),
    "max_completion_tokens": Row(integer(1, TOKENS_MAX), completions=False),
    "min_tokens": Row(integer(0, TOKENS_MAX), 0),
    "temperature": Row(number(0, 2), 1.0),
    "top_p": Row(number(0, 1, above=True), 1.0),
    "top_k": Row(fields.mapped(integer(-1, TOKENS_MAX), lambda k: max(k, 0)), 0),
    "min_p": Row(number(0, 1), 0.0),
    "typical_p": Row(number(0, 1, above=True), 1.0),
    "frequency_penalty": Row(number(-2, 2), 0.0),
    "presence_penalty": Row(number(-2, 2), 0.0),
    "repetition_penalty": Row(number(REPETITION_PENALTY_MIN, 2), 1.0),
    "logit_bias": Row(fields.bias(1024), ()),
    "seed": Row(fields.mapped(integer(-(2**63), 2**64 - 1), lambda seed: seed % 2**64)),
    "stop": Row(fields.one_or_many(stop_string, STOPS_MAX), ()),
    "stop_token_ids": Row(fields.array(integer(0, TOKEN_ID_MAX), STOPS_MAX), ()),
    "bad_words": Row(fields.array(fields.string(BAD_WORD_CHARACTERS_MAX, 1), BAD_WORDS_MAX), ()),
    "logprobs": Row(fields.anything),
    "top_logprobs": Row(integer(0, LOGPROBS_MAX), completions=False),
    "prompt_logprobs": Row(integer(0, LOGPROBS_MAX)),
    "echo": Row(flag, False, chat=False),
    "ignore_eos": Row(flag, False),
    "add_special_tokens": Row(flag),
    "user": Row(fields.string(256), ""),
    **{name: Row(grammar.read, b"") for name in grammar.NAMES},
    "tools": Row(conversation.read_tools, (), completions=False),
    "tool_choice": Row(conversation.read_choice, completions=False),
    "parallel_tool_calls": Row(flag, True, completions=False),
    "add_generation_prompt": Row(flag, completions=False),
    "continue_final_message": Row(flag, False, completions=False),
    "chat_template_kwargs": Row(conversation.read_names, completions=False),
}

UNBUILT: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "chat_template": (),
    "function_call": ("none",),
    "functions": ([],),
    "metadata": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "priority": (0,),
    "prompt_cache_key": ("",),
    "reasoning_effort": (),
    "safety_identifier": ("",),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's and vLLM's APIs that are not built yet, and the values of each that ask for nothing."""


INSTEAD = {"best_of": "ask for `n` answers with `logprobs`, and choose"}
"""What to do without a field, where there is more to say than to leave it out."""

CLOSE = 0.8
"""An unknown field that is so like a known one is a slip, and is refused; others are ignored, and named (difflib)."""


@attrs.frozen
class Ask:
    """A request for tokens, checked."""

    model: str
    prompts: tuple[Segment, ...]
    parameters: Parameters
    n: int = 1
    seed: int | None = None
    """None if the entry shall draw one."""
    stream: bool = False
    include_usage: bool = False
    resumable: bool = False
    """Whether the client may come back for the rest of its stream."""
    echo: bool = False
    chat: bool = False
    grammar: bytes = b""
    """What the output shall look like (`mesh.grammar`); empty if it is free."""
    tools: ToolUse | None = None
    """How the answer may call tools; None if all of it is words."""
    ignored: tuple[str, ...] = ()
    """Fields that nobody knows, as vLLM ignores them; they are named in a header."""


def chat(document: dict[str, Any]) -> Ask:
    """Check the body of a chat completion. Raises RequestError."""
    values = read_fields(document, "chat")
    if values["max_tokens"] is None:
        values["max_tokens"] = values["max_completion_tokens"]
    wanted = values["logprobs"]
    if wanted is not None:
        flag("logprobs", wanted)
    if values["top_logprobs"] is not None and not wanted:
        raise RequestError("invalid_request", "`top_logprobs` needs `logprobs` to be `true`", "top_logprobs")
    values["logprobs"] = (values["top_logprobs"] or 0) if wanted else None
    special = bool(values["add_special_tokens"])  # a chat template writes its own
    tools = conversation.tool_use(values)
    prompt = conversation.segment(values, tools)
    return _ask(values, (prompt,), special, chat=True, tools=tools, grammar=_grammar(values, tools))


def _grammar(values: dict[str, Any], tools: ToolUse | None) -> bytes:
    """Return what the output shall look like: that of a call which must be made, or what a field asks for."""
    asked = grammar.only(values)
    if asked and tools is not None and tools.grammar:
        message = "a call that `tool_choice` asks for is the whole answer: it cannot have another form"
        raise RequestError("invalid_request", message, "tool_choice")
    return tools.grammar if tools is not None and tools.grammar else asked


def completion(document: dict[str, Any]) -> Ask:
    """Check the body of a completion. Raises RequestError."""
    values = read_fields(document, "completions")
    if values["max_tokens"] is None:
        values["max_tokens"] = COMPLETION_TOKENS
    if values["logprobs"] is not None:
        integer(0, LOGPROBS_MAX)("logprobs", values["logprobs"])
    prompts = values["prompt"]
    if values["echo"]:
        check_echo(prompts)
        if values["logprobs"] is not None and values["prompt_logprobs"] is None:
            values["prompt_logprobs"] = values["logprobs"]
    special = values["add_special_tokens"] is not False
    return _ask(values, prompts, special, echo=values["echo"])


def _ask(values: dict[str, Any], prompts: tuple[Segment, ...], special: bool, **more: Any) -> Ask:
    if len(prompts) * values["n"] > CHOICES_MAX:
        asked = f"{len(prompts)} prompts with `n` of {values['n']}"
        message = (
            f"{asked} are more choices than one request may ask for; the limit `choices_max` is {CHOICES_MAX}"
        )
        raise RequestError("invalid_request", message, "n")
    if values["resumable"] and not values["stream"]:
        raise RequestError("invalid_request", "`resumable` needs `stream` to be `true`", "resumable")
    return Ask(
        values["model"],
        prompts,
        read_parameters(values, special),
        values["n"],
        values["seed"],
        values["stream"],
        values["stream_options"],
        values["resumable"],
        **{"grammar": grammar.only(values), "ignored": values["ignored"], **more},
    )


def read_parameters(values: dict[str, Any], special: bool) -> Parameters:
    """Gather the sampling parameters from checked fields."""
    if values["max_tokens"] is not None and values["min_tokens"] > values["max_tokens"]:
        raise RequestError("invalid_request", "`min_tokens` is more than `max_tokens`", "min_tokens")
    same = {name: values[name] for name in SAME}
    return Parameters(**same, stop_ids=values["stop_token_ids"], add_special_tokens=special)


OWN = ("add_special_tokens", "echo")
SAME = tuple(name for name in FIELDS if name in attrs.fields_dict(Parameters) and name not in OWN)
"""Parameters that carry the name and the value of their field."""


ROWS = {
    api: {name: row for name, row in FIELDS.items() if getattr(row, api)} for api in ("chat", "completions")
}
"""The rows that each of the two requests has."""

DEFAULTS = {api: {name: row.default for name, row in rows.items()} for api, rows in ROWS.items()}
"""What each row stands for in a request that does not name it. Nothing in here is ever changed."""


def read_fields(document: dict[str, Any], api: str) -> dict[str, Any]:
    """Read every field by its row; absent ones take their default. Raises RequestError."""
    rows = ROWS[api]
    for name, value in document.items():
        if name not in rows:
            check_unbuilt(name, value, api, rows)
    values = DEFAULTS[api].copy()
    values["ignored"] = tuple(name[:80] for name in document if name not in FIELDS and name not in UNBUILT)
    for name, row in rows.items():
        if document.get(name) is not None:
            values[name] = row.read(name, document[name])
    for name in ("model", "messages" if api == "chat" else "prompt"):
        if values[name] is None:
            raise RequestError("invalid_request", f"`{name}` is missing", name)
    return values


def check_unbuilt(name: str, value: Any, api: str, rows: dict[str, Row]) -> None:
    """Refuse a field that no row reads, unless it asks for nothing, or is known to nobody and no slip of the pen."""
    if name in UNBUILT:
        neutral = UNBUILT[name]
        if value is not None and not any(type(value) is type(good) and value == good for good in neutral):
            message = f"`{name}` is not supported yet\nhint: {INSTEAD.get(name, 'leave it out')}"
            raise RequestError("unsupported_parameter", message, name)
        return
    if name in FIELDS:
        raise RequestError("unsupported_parameter", f"`{name}` is no field of this request ({api})", name)
    if near := difflib.get_close_matches(name[:64], [*rows], 1, CLOSE):
        message = f"`{name:.80}` is an unknown field\nhint: `{near[0]}` is meant?"
        raise RequestError("unsupported_parameter", message, name[:80])


def read_stream_options(name: str, value: Any) -> bool:
    """Read `{"include_usage": bool}`."""
    if type(value) is not dict:
        raise fields.invalid(name, value, "an object")
    unknown = next((key for key in value if key not in ("include_usage", "continuous_usage_stats")), None)
    if unknown is not None or value.get("continuous_usage_stats"):
        key = unknown or "continuous_usage_stats"
        raise RequestError("unsupported_parameter", f"`{name}.{key:.80}` is not supported", name)
    usage = value.get("include_usage")
    return False if usage is None else flag(f"{name}.include_usage", usage)


def read_prompts(name: str, value: Any) -> tuple[Segment, ...]:
    """Read a prompt: a string, a list of token ids, or a list of either."""
    if type(value) is str or (type(value) is list and value and type(value[0]) is int):
        return (read_prompt(name, value),)
    return fields.array(read_prompt, CHOICES_MAX, 1)(name, value)


def read_prompt(name: str, value: Any) -> Segment:
    """Read one prompt."""
    if type(value) is list:
        return Segment("ids", ids=fields.ids(TOKEN_ID_MAX, IDS_MAX)(name, value))
    if type(value) is not str:
        raise fields.invalid(name, value, "a string or a list of token ids")
    if not value:
        raise RequestError("invalid_request", f"`{name}` is empty; at least one character is needed", name)
    return Segment("text", fields.string(TEXT_CHARACTERS_MAX)(name, value))


def check_echo(prompts: tuple[Segment, ...]) -> None:
    """Refuse the forms of `echo` that need the model's own words for the prompt."""
    if any(prompt.kind != "text" for prompt in prompts):
        message = "`echo` is supported for text prompts only"
        raise RequestError("unsupported_parameter", message, "echo")
