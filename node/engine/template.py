"""Chat templates: a model's own Jinja program turns messages into a prompt.

A template is a program from whoever made the model, run on what a client sent. It
runs in Jinja's sandbox (no attribute of Python's machinery, no mutation of its
arguments) and within limits on its size, its output, its ranges and its products;
what is left, a loop that prints nothing, can only be ended by ending the process.
It sees the time at which the entry first rendered it, so that a resumed request
has the same prompt. Whatever goes wrong in it is answered as the request's fault.

The dialect is that of `transformers` (utils/chat_template_utils.py): trimmed blocks,
`break` and `continue`, `raise_exception`, `strftime_now`, `tojson`, `generation`.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from node.engine.text import TextError

SOURCE_CHARS_MAX = 2**20
"""Longest template; the largest in use are some 20,000."""

OUTPUT_CHARS_MAX = 2**24
"""Longest prompt that a template may write."""

PIECES_MAX = 2**20
"""Most pieces of output: every turn of a loop that writes anything writes one."""

RANGE_MAX = 2**17
"""Most turns that all `range`s of one rendering may count together."""

PRODUCT_MAX = 2**20
"""Longest string or list that `*` may make, and largest exponent of `**`."""


class Generation(Extension):
    """`{% generation %}`: marks what the model itself has written; to a prompt it means nothing."""

    tags = {"generation"}  # noqa: RUF012  Jinja declares it so

    def parse(self, parser: Any) -> list[nodes.Node]:
        """Return the block's body."""
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with limits on products."""

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute a product unless it would be huge."""
        if operator == "**" and abs(right) > 64:
            raise SecurityError(f"`**` with an exponent above 64: `{right}`")
        if operator == "*":
            sizes = [len(side) if hasattr(side, "__len__") else side for side in (left, right)]
            if any(hasattr(side, "__len__") for side in (left, right)) and sizes[0] * sizes[1] > PRODUCT_MAX:
                raise SecurityError(f"`*` would make more than {PRODUCT_MAX} elements")
        return super().call_binop(context, operator, left, right)


@attrs.define
class Ranges:
    """The `range` of one rendering: all of them share a budget."""

    left: int = RANGE_MAX

    def __call__(self, *bounds: int) -> range:
        """Return a range, if the budget has room for it."""
        numbers = range(*bounds)
        self.left -= len(numbers)
        if self.left < 0:
            raise SecurityError(f"the template's ranges count more than {RANGE_MAX} in all")
        return numbers


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _clock(rendered_at: int) -> Any:
    """Return `strftime_now`; it speaks UTC, so that every worker says the same."""
    now = dt.datetime.fromtimestamp(rendered_at, dt.UTC)
    return now.strftime


@attrs.frozen(eq=False)
class ChatTemplate:
    """A compiled chat template."""

    program: jinja2.Template
    names: Mapping[str, str]
    """The special tokens by their names, as `bos_token`."""
    knows_tools: bool = False
    """Whether it renders tools by itself."""

    @classmethod
    def compile(cls, source: str, names: Mapping[str, str]) -> "ChatTemplate":
        """Compile a template. Raises ValueError if it is too long or no template."""
        if len(source) > SOURCE_CHARS_MAX:
            raise ValueError(f"a chat template of `{len(source)}` characters exceeds {SOURCE_CHARS_MAX}")
        extensions = [Generation, "jinja2.ext.loopcontrols"]
        sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        sandbox.filters["tojson"] = _tojson
        sandbox.globals["raise_exception"] = _raise_exception
        try:
            return cls(sandbox.from_string(source), names, "tools" in source)
        except (jinja2.TemplateError, SyntaxError) as error:  # `break` outside a loop is found by Python only
            raise ValueError(f"the chat template is broken: {error}") from None

    def render(self, messages: Sequence[Mapping[str, Any]], rendered_at: int) -> str:
        """Return the prompt that asks for an answer to `messages`. Raises TextError."""
        return self.converse(Conversation(tuple(messages)), rendered_at)

    def converse(self, conversation: "Conversation", rendered_at: int) -> str:
        """Return the prompt that asks for an answer, or for the rest of the last message. Raises TextError."""
        messages = [*conversation.messages]
        if conversation.tools and not self.knows_tools:
            messages = with_tools(messages, conversation.tools)
        if conversation.continued:
            last = messages[-1]
            messages[-1] = {**last, "content": f"{last.get('content') or ''}{CUT}"}
        names = {**conversation.names, **self.names}
        pieces = self.program.generate(
            messages=messages,
            tools=list(conversation.tools) or None,
            documents=None,
            add_generation_prompt=conversation.generate,
            strftime_now=_clock(rendered_at),
            range=Ranges(),
            **names,
        )
        try:
            text = _joined(pieces)
        except Exception as error:  # foreign code: whatever it raises is its own
            raise TextError(f"the chat template refused the messages: {error}", "messages") from error
        return _cut(text) if conversation.continued else text


def _joined(pieces: Any) -> str:
    taken: list[str] = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size > OUTPUT_CHARS_MAX or len(taken) > PIECES_MAX:
            raise SecurityError(f"it wrote more than {OUTPUT_CHARS_MAX} characters or {PIECES_MAX} pieces")
    return "".join(taken)


CUT = "\ufdd0\ufdd1\ufdd0"
"""Marks where the last message's words end, if they are to go on. Unicode has set these apart for such uses."""


def _cut(text: str) -> str:
    """Return what stands before the mark: the end of a turn, which the template has written, is not yet due."""
    before, mark, _ = text.rpartition(CUT)
    if not mark:
        raise TextError(
            "the chat template changes the last message, so that it cannot be continued", "messages"
        )
    return before


TOOLS_TEXT = """You may call functions. These are the functions, one JSON object per line:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments as JSON between these tags:
<tool_call>
{{"name": "...", "arguments": {{...}}}}
</tool_call>"""
"""What a model is told of its tools if its own template does not know any (the words of Hermes, shortened)."""


def with_tools(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return the messages with the tools told of at their head, and calls and results as words."""
    told = TOOLS_TEXT.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    head = [m["content"] for m in messages[:1] if m["role"] in ("system", "developer")]
    first = {"role": "system", "content": "\n\n".join([*head, told])}
    return [first, *map(_in_words, messages[len(head) :])]


def _in_words(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = [json.dumps(call.get("function"), ensure_ascii=False) for call in message.get("tool_calls") or ()]
    words = [*([content] if content else []), *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)]
    return {"role": message["role"], "content": "\n".join(words)}


@attrs.frozen
class Conversation:
    """What a template is asked to render."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Any, ...] = ()
    names: Mapping[str, Any] = attrs.Factory(dict)
    """What the template finds by name beside (`chat_template_kwargs`); the model's own names win."""
    generate: bool = True
    """Whether an answer begins (`add_generation_prompt`)."""
    continued: bool = False
    """Whether the last message goes on (`continue_final_message`)."""


def read_conversation(text: str) -> Conversation:
    """Return what a segment of messages asks for. Raises TextError."""
    messages = tuple(read_messages(text))
    document = json.loads(text)
    tools, names = document.get("tools") or [], document.get("names") or {}
    if not isinstance(tools, list) or not isinstance(names, dict):
        raise TextError("`tools` are an array and `names` an object", "messages")
    continued = document.get("continue_final_message") is True
    generate = document.get("add_generation_prompt") is not False and not continued
    return Conversation(messages, tuple(tools), names, generate, continued)


def read_messages(text: str) -> list[dict[str, Any]]:
    """Return the `messages` of a JSON object; a content made of text parts is joined. Raises TextError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TextError(f"messages are no JSON: {error}", "messages") from None
    messages = document.get("messages") if isinstance(document, dict) else None
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise TextError("messages are an array of at least one object", "messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(message.get("role"), str):
        raise TextError(f"`{where}.role` is no string", "messages")
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": "\n".join(_part(part, where) for part in content)}
    if content is not None and not isinstance(content, str):
        raise TextError(f"`{where}.content` is neither a string nor an array of parts", "messages")
    return message


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, dict) else part
        raise TextError(f"`{where}.content` has a part `{kind!s:.32}`; only text is understood", "messages")
    text: str = part["text"]
    return text
