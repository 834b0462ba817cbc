"""The command line, from what is typed to what is meant."""

import pytest

from node.cli import arguments, main
from node.configure import SettingsError
from node.settings import SETTINGS

FROM_THE_ISSUE = """--name N --http 127.0.0.1:1 --ops 127.0.0.1:2 --bind 127.0.0.1:3 --advertise 127.0.0.1:3
    --join 127.0.0.1:4 --join 127.0.0.1:5 --model ember-py --model DIR --role all --device cuda:0 --dtype bf16
    --threads 2 --data-dir DIR --config FILE --log-level info --ready-file FILE""".split()


def test_the_promised_flags_are_there():
    parsed = arguments.parse(FROM_THE_ISSUE)
    assert parsed.command == "serve"
    assert parsed.flags["join"] == ["127.0.0.1:4", "127.0.0.1:5"]
    assert parsed.flags["data_dir"] == "DIR"
    assert len(parsed.flags) == 15


def test_every_setting_has_a_flag():
    words = [word for setting in SETTINGS for word in (setting.flag, "x")]
    assert set(arguments.parse(words).flags) == {setting.name for setting in SETTINGS}


def test_serve_is_meant_when_no_command_is_named():
    assert arguments.parse([]) == arguments.parse(["serve"])
    assert arguments.parse(["mesh", "--nodes", "5"]).options == {"nodes": 5}
    assert arguments.parse(["mesh"]).options == {"nodes": 3}


def test_a_member_to_forget_is_named_behind_the_command():
    parsed = arguments.parse(["forget", "node-3", "--ops", "127.0.0.1:2"])
    assert (parsed.command, parsed.word, parsed.flags) == ("forget", "node-3", {"ops": "127.0.0.1:2"})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--htpp x", ["`--htpp`", "did you mean `--http`?"]),
        ("forget", ["NODE"]),
        ("forget a b", ["`b`"]),
        ("--qqqq", ["`--qqqq`", "--help"]),
        ("--na x", ["`--na`"]),
        ("mseh", ["`mseh`", "did you mean `mesh`?"]),
        ("dance", ["`dance`", "`serve`"]),
        ("mesh more", ["`more`"]),
        ("mesh --nodes 0", ["`0`", "--nodes", "1 to 64"]),
        ("mesh --nodes x", ["`x`", "whole number"]),
        ("--nodes 3", ["`--nodes`"]),
        ("--http", ["--http", "expected one argument"]),
    ],
)
def test_a_mistake_is_named(line: str, words: list[str]):
    with pytest.raises(SettingsError) as caught:
        arguments.parse(line.split())
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_mistake_goes_to_standard_error_with_status_2(capsys: pytest.CaptureFixture[str]):
    assert main.main(["--http", "nowhere"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: `nowhere`")
    assert err.splitlines()[-1].startswith("hint: ")


@pytest.mark.parametrize("command", arguments.COMMANDS)
def test_help_shows_every_setting_and_the_commands_own_numbers(
    command: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        arguments.parse([command, "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert [setting.flag for setting in SETTINGS if setting.flag not in text] == []
    assert [
        option.name for option in arguments.COMMANDS[command].options if f"--{option.name}" not in text
    ] == []
    assert max(map(len, text.splitlines())) <= 110
