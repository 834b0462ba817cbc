"""Answers to requests for tokens, in the form of OpenAI's API: pure.

A stream's events are put together from text, not from objects: there is one per step and stream, and the
parts that never change are encoded once.
"""

import json
from collections.abc import Iterable
from typing import Any, assert_never

import attrs

from mesh.flight import Chunk, Finish, Started
from mesh.frames import Logprob, PromptToken
from node.http.tools import Argued, Called, Said
from node.http.tools import Event as ToolEvent

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

LOGPROB_MIN = -9999.0
"""What OpenAI reports for a token that cannot be: JSON has no minus infinity."""


@attrs.frozen
class Form:
    """One of the two APIs: the names of its answers."""

    prefix: str
    answer: str
    event: str


CHAT = Form("chatcmpl-", "chat.completion", "chat.completion.chunk")
COMPLETION = Form("cmpl-", "text_completion", "text_completion")


def fingerprint(digest: str) -> str:
    """Return the short name of a model's bytes that stands as `system_fingerprint`."""
    return "fp_" + digest.rpartition(":")[2][:16]


@attrs.frozen
class Usage:
    """Tokens of a request: each prompt counts once, however many choices it has."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as OpenAI writes it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


def usage_of(started: Iterable[Started], delivered: Iterable[int]) -> Usage:
    """Sum up: `started` is that of each prompt's first choice, `delivered` is for all choices."""
    prompts = tuple(started)
    cached = sum(one.cached_tokens for one in prompts)
    return Usage(sum(one.prompt_tokens for one in prompts), sum(delivered), cached)


def chat_logprobs(logprobs: Iterable[Logprob]) -> dict[str, Any]:
    """Write log-probabilities as chat completions do."""
    return {"content": [_chat_token(one) for one in logprobs], "refusal": None}


def _chat_token(one: Logprob) -> dict[str, Any]:
    top = [_named(token, logprob) for token, logprob in one.top]
    return {**_named(one.token, one.logprob), "top_logprobs": top}


def _named(token: bytes, logprob: float) -> dict[str, Any]:
    text = token.decode(errors="replace")
    return {"token": text, "logprob": max(logprob, LOGPROB_MIN), "bytes": list(token)}


def completion_logprobs(logprobs: Iterable[Logprob], offset: int) -> tuple[dict[str, Any], int]:
    """Write log-probabilities as completions do; return them and where the next token's text begins."""
    tokens, values, tops, offsets = [], [], [], []
    for one in logprobs:
        tokens.append(token_text(one.token))
        values.append(max(one.logprob, LOGPROB_MIN))
        tops.append({token_text(token): max(value, LOGPROB_MIN) for token, value in one.top} or None)
        offsets.append(offset)
        offset += len(one.token.decode(errors="ignore"))
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}, offset


def _with_prompt(choice: "Choice", tokens: list[Logprob]) -> dict[str, Any]:
    """Write log-probabilities; those of an echoed prompt come first."""
    if not (choice.echoed and choice.prompt):
        return completion_logprobs(tokens, choice.echoed)[0]
    document = echo_document(choice.prompt, choice.text)
    rest = completion_logprobs(tokens, choice.echoed)[0]
    return {name: [*document[name], *rest[name]] for name in document}


def echo_document(prompt: tuple[PromptToken, ...], text: str) -> dict[str, Any]:
    """Write an echoed prompt's log-probabilities. Tokens that the tokeniser has added take no room in its text."""
    document = completion_logprobs(echoed_logprobs(prompt), 0)[0]
    document["token_logprobs"][0] = document["top_logprobs"][0] = None
    offsets, at = [], 0
    for one in prompt:
        said = one.token.decode(errors="ignore")
        offsets.append(at)
        at += len(said) * text.startswith(said, at)
    return {**document, "text_offset": offsets}


def echoed_logprobs(prompt: Iterable[PromptToken]) -> list[Logprob]:
    """Return a prompt's tokens as those of an output are told."""
    return [
        Logprob(one.token, one.logprob, tuple((other.token, other.logprob) for other in one.top))
        for one in prompt
    ]


def prompt_logprobs(prompt: tuple[PromptToken, ...]) -> list[dict[str, Any] | None]:
    """Write a prompt's log-probabilities as vLLM does: by id, the likeliest and the one that stood there."""
    return [None, *(_by_id(one) for one in prompt[1:])]


def _by_id(one: PromptToken) -> dict[str, Any]:
    ranked = [(other.id, other.token, other.logprob, rank) for rank, other in enumerate(one.top, 1)]
    return {
        str(id): {
            "logprob": max(logprob, LOGPROB_MIN),
            "rank": rank,
            "decoded_token": token.decode(errors="replace"),
        }
        for id, token, logprob, rank in [*ranked, (one.id, one.token, one.logprob, one.rank)]
    }


def token_text(token: bytes) -> str:
    """Write a token; one that is no whole text by its bytes in hexadecimal, so that no two look alike."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


@attrs.define
class Events:
    """The events of one streamed answer, as server-sent events. Holds only what text offsets need."""

    form: Form
    flight: int
    created: int
    model: str
    digest: str
    logprobs: bool = False
    usage: bool = False
    """Whether the client asked for a last event with the usage; all others then say `null`."""
    _top: str = attrs.field(init=False)
    _bottom: str = attrs.field(init=False)
    _offsets: dict[int, int] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        top = {
            "id": f"{self.form.prefix}{self.flight:016x}",
            "object": self.form.event,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": fingerprint(self.digest),
        }
        self._top = f'data: {encode(top)[:-1]},"choices":['
        self._bottom = '],"usage":null,' if self.usage else "],"

    def role(self, index: int) -> bytes:
        """Return a chat choice's first event."""
        return self._event(index, '"delta":{"role":"assistant","content":""},"logprobs":null', "null", "{}")

    def text(self, index: int, text: str, extension: str, prompt: tuple[PromptToken, ...] = ()) -> bytes:
        """Return an event of text that no produced token stands for: an echo."""
        self._offsets[index] = len(text)
        logprobs = "null"
        if self.logprobs and prompt:
            logprobs = encode(echo_document(prompt, text))
        return self._event(index, f'{self._words(text)},"logprobs":{logprobs}', "null", extension)

    def told(
        self,
        index: int,
        events: list[ToolEvent],
        chunk: Chunk | None,
        extension: str,
        merged: bool = False,
    ) -> bytes:
        """Return the events of one chunk of an answer that may call tools; `chunk` is None for what was held back.

        If `merged`, there is at most one.
        """
        if merged:
            deltas = [encode(self._merged(index, events))] if events else []
        else:
            deltas = [_delta(event, self.call_id(index, event)) for event in events]
        logprobs = self._logprobs(index, chunk) if self.logprobs and chunk is not None else "null"
        if not deltas and logprobs != "null":
            deltas = ["{}"]
        parts = zip(deltas, [logprobs, *["null"] * len(deltas)], strict=False)
        return b"".join(
            self._event(index, f'"delta":{delta},"logprobs":{said}', "null", extension)
            for delta, said in parts
        )

    def _merged(self, index: int, events: list[ToolEvent]) -> dict[str, Any]:
        """Write all that events add to a message as one delta."""
        said = "".join(event.text for event in events if isinstance(event, Said))
        calls: dict[int, dict[str, Any]] = {}
        for event in events:
            match event:
                case Called(call, name):
                    function = {"name": name, "arguments": ""}
                    id = self.call_id(index, event)
                    calls[call] = {"index": call, "id": id, "type": "function", "function": function}
                case Argued(call, text):
                    entry = calls.setdefault(call, {"index": call, "function": {"arguments": ""}})
                    entry["function"]["arguments"] += text
        delta: dict[str, Any] = {"content": said} if said else {}
        return {**delta, "tool_calls": [*calls.values()]} if calls else delta

    def call_id(self, choice: int, event: ToolEvent) -> str:
        """Return the id of a call: a function of the request and its place."""
        return "" if isinstance(event, Said) else f"call_{self.flight:016x}{choice:02x}{event.index:03x}"

    def tokens(self, index: int, chunk: Chunk, extension: str) -> bytes:
        """Return the event of one chunk of the log."""
        logprobs = self._logprobs(index, chunk) if self.logprobs else "null"
        return self._event(index, f'{self._words(chunk.text)},"logprobs":{logprobs}', "null", extension)

    def finish(
        self,
        index: int,
        finish: Finish | None,
        extension: str,
        called: bool = False,
        rest: list[ToolEvent] | None = None,
    ) -> bytes:
        """Return a choice's last event; `called` if it has called tools of its own will, `rest` what is added to it."""
        words = f'"delta":{encode(self._merged(index, rest or []))}' if self.form is CHAT else '"text":""'
        reason = encode(reason_of(finish, called))
        return self._event(index, f'{words},"logprobs":null', reason, extension)

    def total(self, usage: Usage) -> bytes:
        """Return the event that carries the usage."""
        return f'{self._top}],"usage":{encode(usage.document())}}}\n\n'.encode()

    def _event(self, index: int, words: str, reason: str, extension: str) -> bytes:
        choice = f'{{"index":{index},{words},"finish_reason":{reason}}}'
        return f'{self._top}{choice}{self._bottom}"inferno":{extension}}}\n\n'.encode()

    def _words(self, text: str) -> str:
        return f'"delta":{{"content":{encode(text)}}}' if self.form is CHAT else f'"text":{encode(text)}'

    def _logprobs(self, index: int, chunk: Chunk) -> str:
        if self.form is CHAT:
            return encode(chat_logprobs(chunk.logprobs))
        document, self._offsets[index] = completion_logprobs(chunk.logprobs, self._offsets.get(index, 0))
        return encode(document)


def reason_of(finish: Finish | None, called: bool) -> str:
    """Return why a choice has ended, as OpenAI spells it."""
    reason = finish.reason if finish else "stop"
    return "tool_calls" if called and reason == "stop" else reason


def _delta(event: ToolEvent, call_id: str) -> str:
    """Write what an event adds to a message."""
    match event:
        case Said(text):
            return encode({"content": text})
        case Called(index, name):
            function = {"name": name, "arguments": ""}
            return encode(
                {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
            )
        case Argued(index, text):
            return encode({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
    assert_never(event)


def message_of(events: list[ToolEvent], ids: list[str]) -> dict[str, Any]:
    """Write a complete message from all its events, with the id of each."""
    said = "".join(event.text for event in events if isinstance(event, Said))
    calls: list[dict[str, Any]] = []
    for event, call_id in zip(events, ids, strict=True):
        if isinstance(event, Called):
            function = {"name": event.name, "arguments": ""}
            calls.append({"id": call_id, "type": "function", "function": function})
        elif isinstance(event, Argued):
            calls[event.index]["function"]["arguments"] += event.text
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said or (None if calls else ""),
        "refusal": None,
    }
    return {**message, "tool_calls": calls} if calls else message


def extension(worker: str, moves: int, tokens: int, policy_changed: bool = False) -> str:
    """Write what only Inferno says of a choice: who serves it, how often it has moved, tokens so far."""
    changed = ',"policy_changed":true' if policy_changed else ""
    return f'{{"worker":{encode(worker)},"moves":{moves},"tokens":{tokens}{changed}}}'


def error_event(document: dict[str, Any]) -> bytes:
    """Return the event that ends a stream badly."""
    return f"data: {encode(document)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


@attrs.frozen
class Choice:
    """One complete choice."""

    index: int
    text: str
    finish: Finish | None
    chunks: tuple[Chunk, ...]
    worker: str
    moves: int
    echoed: int = 0
    """Characters of `text` that are the prompt's."""
    policy_changed: bool = False
    prompt: tuple[PromptToken, ...] = ()
    """The prompt's tokens, if their log-probabilities were asked for."""
    message: dict[str, Any] | None = None
    """The message, if the answer may call tools."""
    called: bool = False
    """Whether it has called tools of its own will."""


def choice_document(form: Form, choice: Choice, logprobs: bool) -> dict[str, Any]:
    """Write a complete choice."""
    said: dict[str, Any]
    tokens = [one for chunk in choice.chunks for one in chunk.logprobs]
    if form is CHAT:
        said = {"message": choice.message or {"role": "assistant", "content": choice.text, "refusal": None}}
        said["logprobs"] = chat_logprobs(tokens) if logprobs else None
    else:
        said = {"text": choice.text}
        said["logprobs"] = _with_prompt(choice, tokens) if logprobs else None
    if choice.prompt:
        said["prompt_logprobs"] = prompt_logprobs(choice.prompt)
    return {"index": choice.index, **said, "finish_reason": reason_of(choice.finish, choice.called)}


def answer(events: Events, choices: tuple[Choice, ...], usage: Usage) -> bytes:
    """Write a complete answer; `events` holds what it has in common with a stream."""
    form = events.form
    changed = {"policy_changed": True} if any(choice.policy_changed for choice in choices) else {}
    moves = sum(choice.moves for choice in choices)
    document = {
        "id": f"{form.prefix}{events.flight:016x}",
        "object": form.answer,
        "created": events.created,
        "model": events.model,
        "system_fingerprint": fingerprint(events.digest),
        "choices": [choice_document(form, choice, events.logprobs) for choice in choices],
        "usage": usage.document(),
        "inferno": {"worker": choices[0].worker, "moves": moves, **changed},
    }
    return encode(document).encode()
