"""Messages, tools and the choice of tools: what the worker is told, and what is refused by name."""

import json

import jsonschema
import pytest

from mesh import grammar
from node.errors import RequestError
from node.http import schema
from node.http.conversation import TOOLS_MAX

USER = {"role": "user", "content": "hi"}
FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "required": ["q"]}}}
OPEN = {"type": "function", "function": {"name": "open"}}


def chat(**more) -> schema.Ask:
    return schema.chat({"model": "m", "messages": [USER], **more})


def told(**more) -> dict:
    (segment,) = chat(**more).prompts
    return json.loads(segment.text)


def test_tools_are_told_to_the_worker_and_named_for_the_entry():
    assert told(tools=[FIND, OPEN]) == {"messages": [USER], "tools": [FIND, OPEN]}
    tools = chat(tools=[FIND, OPEN]).tools
    assert (tools.names, tools.named, tools.grammar) == ({"find", "open"}, "", b"")


@pytest.mark.parametrize(
    "more", [{}, {"tools": []}, {"tools": [FIND], "tool_choice": "none"}, {"tool_choice": "auto"}]
)
def test_without_tools_all_is_words(more: dict):
    assert chat(**more).tools is None
    assert told(**more) == {"messages": [USER]}


def test_a_named_function_has_the_grammar_of_its_parameters():
    choice = {"type": "function", "function": {"name": "find"}}
    ask = chat(tools=[FIND, OPEN], tool_choice=choice)
    assert ask.tools.named == "find"
    assert grammar.read(ask.grammar) == ("json", FIND["function"]["parameters"])


@pytest.mark.parametrize("several", [True, False])
def test_a_required_call_is_a_list_of_calls(several: bool):
    deep = {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    tools = [FIND, {"type": "function", "function": {"name": "count", "parameters": deep}}]
    kind, form = grammar.read(chat(tools=tools, tool_choice="required", parallel_tool_calls=several).grammar)
    assert kind == "json"

    def valid(*calls: tuple[str, dict]) -> bool:
        said = [{"name": name, "arguments": arguments} for name, arguments in calls]
        return jsonschema.Draft202012Validator(form).is_valid(said)

    assert valid(("find", {"q": 1}))
    assert valid(("count", {"x": 1}))
    assert not valid(("count", {"x": "1"}))
    assert not valid(("find", {}))
    assert not valid(("other", {}))
    assert not valid()
    assert valid(("find", {"q": 1}), ("count", {})) == several


def test_history_with_calls_reaches_the_template_with_arguments_as_objects():
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
    history = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
    ]
    expected = {**call, "function": {"name": "find", "arguments": {"q": 1}}}
    assert told(messages=history)["messages"] == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [expected]},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
    ]


def test_how_the_template_shall_render():
    assert told(add_generation_prompt=False)["add_generation_prompt"] is False
    go_on = told(continue_final_message=True, add_generation_prompt=False)
    assert (go_on["continue_final_message"], go_on["add_generation_prompt"]) == (True, False)
    assert told(continue_final_message=True)["continue_final_message"] is True
    assert told(chat_template_kwargs={"thinking": False})["names"] == {"thinking": False}


BAD = [
    ({"tools": 1}, "tools"),
    ({"tools": [1]}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f", "description": 1}}]}, "tools"),
    ({"tools": [FIND, FIND]}, "tools"),
    ({"tools": [OPEN] * (TOOLS_MAX + 1)}, "tools"),
    ({"tools": [FIND], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [FIND], "tool_choice": {"type": "function", "function": {"name": "open"}}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [FIND], "tool_choice": "required", "regex": "a"}, "tool_choice"),
    ({"tools": [FIND], "parallel_tool_calls": 1}, "parallel_tool_calls"),
    ({"add_generation_prompt": 1}, "add_generation_prompt"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    (
        {"continue_final_message": True, "messages": [{"role": "user", "content": ""}]},
        "continue_final_message",
    ),
    ({"chat_template_kwargs": 1}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        "messages",
    ),
    ({"messages": [{"role": "assistant", "tool_calls": 1}]}, "messages"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages"),
]


@pytest.mark.parametrize(("more", "param"), BAD, ids=range(len(BAD)))
def test_what_makes_no_sense_is_refused_by_name(more: dict, param: str):
    with pytest.raises(RequestError) as refused:
        chat(**more)
    assert refused.value.param.split("[")[0].split(".")[0] == param


def test_tools_that_define_a_name_in_two_ways_cannot_both_be_required():
    def tool(name: str, kind: str) -> dict:
        parameters = {"type": "object", "$defs": {"x": {"type": kind}}}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    with pytest.raises(RequestError, match="two tools define `x`"):
        chat(tools=[tool("a", "string"), tool("b", "integer")], tool_choice="required")
    assert chat(tools=[tool("a", "string"), tool("b", "string")], tool_choice="required").grammar
