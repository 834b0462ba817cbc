"""What a chat says beside its sampling: messages, tools, and how the template shall render them.

The worker's chat template turns all of it into a prompt. What the entry itself needs of the tools is small: their
names, to tell calls from words, and for `tool_choice: "required"` or a named function the grammar of the answer.
"""

import json
from typing import Any

import attrs

from mesh import grammar
from mesh.attempt import Segment
from node.errors import RequestError
from node.http import fields
from node.http.limits import MESSAGES_MAX, NAME_CHARACTERS_MAX

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles that a message may have; `function` belonged to an API before tools."""

TEXT_CHARACTERS_MAX = 2**22
"""More than a body can hold: the body's limit speaks first."""

TOOLS_MAX = 128
"""Most tools of a request, and most calls of one message."""

RESERVED = frozenset(
    ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "range")
)
"""Names that a template finds there by its own right."""

label = fields.string(NAME_CHARACTERS_MAX, 1)


@attrs.frozen
class ToolUse:
    """How an answer may call tools."""

    names: frozenset[str]
    named: str = ""
    """The one function that must be called; its arguments are the whole answer."""
    grammar: bytes = b""
    """What a call that must be made looks like; empty if the model may do as it likes."""


def read_messages(name: str, value: Any) -> list[dict[str, Any]]:
    """Read a conversation."""
    messages: list[dict[str, Any]] = list(fields.array(_message, MESSAGES_MAX, 1)(name, value))
    return messages


def segment(values: dict[str, Any], tools: ToolUse | None) -> Segment:
    """Return the one segment that the worker's chat template renders. Raises RequestError."""
    document: dict[str, Any] = {"messages": values["messages"]}
    if tools is not None:
        document["tools"] = values["tools"]
    if values["chat_template_kwargs"]:
        document["names"] = values["chat_template_kwargs"]
    generate, go_on = values["add_generation_prompt"], values["continue_final_message"]
    if go_on and generate:
        message = "`continue_final_message` and `add_generation_prompt` exclude each other"
        raise RequestError("invalid_request", message, "continue_final_message")
    if go_on and not values["messages"][-1]["content"]:
        message = "`continue_final_message` needs a last message with words"
        raise RequestError("invalid_request", message, "continue_final_message")
    if go_on:
        document["continue_final_message"] = True
    if generate is False or go_on:
        document["add_generation_prompt"] = False
    return Segment("messages", json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def tool_use(values: dict[str, Any]) -> ToolUse | None:
    """Return how tools may be called; None if none may. Raises RequestError."""
    tools, choice = values["tools"], values["tool_choice"]
    if not tools:
        if choice not in (None, "none", "auto"):
            raise RequestError(
                "invalid_request", "`tool_choice` asks for a call, but there are no `tools`", "tool_choice"
            )
        return None
    if choice == "none":
        return None
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    names = frozenset(functions)
    if choice in (None, "auto"):
        return ToolUse(names)
    if choice == "required":
        return ToolUse(names, "", _calls(list(functions.values()), values["parallel_tool_calls"]))
    if choice not in functions:
        raise RequestError(
            "invalid_request", f"`tool_choice` names `{choice:.80}`, which is none of `tools`", "tool_choice"
        )
    return ToolUse(names, choice, grammar.write("json", _parameters(functions[choice])))


def read_tools(name: str, value: Any) -> list[dict[str, Any]]:
    """Read the tools of a request."""
    tools: list[dict[str, Any]] = list(fields.array(_tool, TOOLS_MAX)(name, value))
    seen = [tool["function"]["name"] for tool in tools]
    twice = next((one for index, one in enumerate(seen) if one in seen[:index]), None)
    if twice is not None:
        raise RequestError("invalid_request", f"`{name}` has two functions `{twice:.80}`", name)
    return tools


def read_choice(name: str, value: Any) -> str:
    """Read `tool_choice`: `none`, `auto`, `required`, or the name of the function that must be called."""
    if type(value) is str and value in ("none", "auto", "required"):
        return value
    if type(value) is dict and value.get("type") == "function" and type(value.get("function")) is dict:
        return str(label(f"{name}.function.name", value["function"].get("name")))
    raise fields.invalid(name, value, "`none`, `auto`, `required`, or an object that names a function")


def read_names(name: str, value: Any) -> dict[str, Any]:
    """Read what a chat template shall find by name."""
    if type(value) is not dict:
        raise fields.invalid(name, value, "an object")
    taken = next((key for key in value if key in RESERVED or not key.isidentifier()), None)
    if taken is not None:
        raise RequestError("invalid_request", f"`{name}.{taken:.80}` is no name that may be given", name)
    return value


def _tool(name: str, value: Any) -> dict[str, Any]:
    function = value.get("function") if type(value) is dict and value.get("type") == "function" else None
    if type(function) is not dict:
        raise fields.invalid(
            name, value, 'an object such as `{"type": "function", "function": {"name": "f"}}`'
        )
    label(f"{name}.function.name", function.get("name"))
    if function.get("description") is not None:
        fields.string(TEXT_CHARACTERS_MAX)(f"{name}.function.description", function["description"])
    if type(function.get("parameters", {})) not in (dict, type(None)):
        raise fields.invalid(f"{name}.function.parameters", function["parameters"], "a JSON schema")
    return {"type": "function", "function": function}


def _parameters(function: dict[str, Any]) -> dict[str, Any]:
    return function.get("parameters") or {"type": "object"}


def _calls(functions: list[dict[str, Any]], several: bool) -> bytes:
    """Return the grammar of a list of calls; definitions of the parameters move to its root."""
    definitions: dict[str, Any] = {}
    options = []
    for function in functions:
        parameters = dict(_parameters(function))
        for key in ("$defs", "definitions"):
            for name, definition in (parameters.pop(key, None) or {}).items():
                if definitions.setdefault(key, {}).setdefault(name, definition) != definition:
                    message = f"two tools define `{name:.80}` in different ways\nhint: rename one"
                    raise RequestError("invalid_request", message, "tools")
        properties = {"name": {"const": function["name"]}, "arguments": parameters}
        options.append(
            {
                "type": "object",
                "properties": properties,
                "required": [*properties],
                "additionalProperties": False,
            }
        )
    most = {} if several else {"maxItems": 1}
    return grammar.write(
        "json", {**definitions, "type": "array", "minItems": 1, **most, "items": {"anyOf": options}}
    )


def _message(name: str, value: Any) -> dict[str, Any]:
    """Read one message; its text parts are joined."""
    if type(value) is not dict:
        raise fields.invalid(name, value, "an object with `role` and `content`")
    role = value.get("role")
    if role not in ROLES:
        raise fields.invalid(f"{name}.role", role, "one of " + ", ".join(f"`{role}`" for role in ROLES))
    known = ("role", "content", "name", *(("tool_calls",) if role == "assistant" else ()))
    known += ("tool_call_id",) if role == "tool" else ()
    for key, item in value.items():
        if key not in known and item:
            raise RequestError("unsupported_parameter", f"`{name}.{key:.80}` is not supported yet", name)
    calls = [
        _call(f"{name}.tool_calls", call) for call in _list(f"{name}.tool_calls", value.get("tool_calls"))
    ]
    content = value.get("content")
    message = {
        "role": role,
        "content": "" if calls and content is None else _content(f"{name}.content", content),
    }
    for key in ("name", "tool_call_id"):
        if value.get(key) is not None:
            message[key] = label(f"{name}.{key}", value[key])
    return {**message, "tool_calls": calls} if calls else message


def _list(name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if type(value) is not list or len(value) > TOOLS_MAX:
        raise fields.invalid(name, value, f"a list of at most {TOOLS_MAX} calls")
    return value


def _call(name: str, value: Any) -> dict[str, Any]:
    """Read a call that the assistant has made; its arguments become the object that templates expect."""
    function = value.get("function") if type(value) is dict else None
    if type(function) is not dict:
        raise fields.invalid(name, value, "an object with a `function`")
    label(f"{name}.function.name", function.get("name"))
    arguments = function.get("arguments")
    if type(arguments) is str:
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            message = f"`{name}.function.arguments` is no JSON: {error!s:.80}"
            raise RequestError("invalid_request", message, "messages") from None
    call = {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}
    return {"id": label(f"{name}.id", value["id"]), **call} if value.get("id") else call


def _content(name: str, value: Any) -> str:
    """Read a message's text, given as a string or as parts."""
    if type(value) is list:
        return "".join(fields.array(_part, MESSAGES_MAX)(name, value))
    return str(fields.string(TEXT_CHARACTERS_MAX)(name, value))


def _part(name: str, value: Any) -> str:
    """Read one part of a message; only text is built."""
    if type(value) is not dict or type(value.get("type")) is not str:
        raise fields.invalid(name, value, 'an object such as `{"type": "text", "text": "..."}`')
    if value["type"] != "text":
        message = f"`{name}.type` is `{value['type']:.40}`; only `text` is supported yet"
        raise RequestError("unsupported_parameter", message, name)
    return str(fields.string(TEXT_CHARACTERS_MAX)(f"{name}.text", value.get("text")))
