"""The table, and how flags, environment, file and defaults become one Config."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.configure import SettingsError, load, to_flags
from node.settings import BY_NAME, SETTINGS, Config
from node.values import HostPort


def refusal(flags: dict | None = None, environment: dict | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(flags or {}, environment or {})
    return caught.value


@pytest.fixture
def file(tmp_path: Path):
    """Write a configuration file and return its path as a flag would give it."""

    def write(text: str) -> str:
        path = tmp_path / "inferno.toml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults_need_nothing():
    config = load({}, {})
    assert (config.http, config.ops, config.bind) == (
        ("127.0.0.1", 8080),
        ("127.0.0.1", 6100),
        ("127.0.0.1", 7946),
    )
    assert (config.models, config.join, config.data_dir) == (("ember-py",), (), None)
    assert not any(config.explicit(setting.name) for setting in SETTINGS)


def test_every_default_is_within_its_own_bounds():
    for setting in SETTINGS:
        if setting.default is not None:
            setting.value(setting.default)


def test_the_first_place_that_gives_a_value_wins(file):
    path = file('flights_max = 3\nmoves_max = 3\nname = "c"\n')
    config = load(
        {"flights_max": "1", "config": path}, {"INFERNO_FLIGHTS_MAX": "2", "INFERNO_MOVES_MAX": "2"}
    )
    assert (config.flights_max, config.moves_max, config.name, config.role) == (1, 2, "c", "all")
    assert [config.sources[name] for name in ("flights_max", "moves_max", "name", "role")] == [
        "--flights-max",
        "INFERNO_MOVES_MAX",
        path,
        "default",
    ]


def test_an_explicit_address_is_told_from_a_default_one():
    config = load({"http": "127.0.0.1:8080"}, {"INFERNO_OPS": "127.0.0.1:0"})
    assert config.http == load({}, {}).http
    assert (config.explicit("http"), config.explicit("ops"), config.explicit("bind")) == (True, True, False)


def test_older_variables_are_accepted_and_newer_ones_win():
    older = {"PINGORA_LOG_LEVEL": "debug", "PINGORA_LISTEN_ADDR": "127.0.0.1:1", "PINGORA_WHATEVER": "x"}
    assert load({}, older).log_level == "debug"
    assert load({}, older).http.port == 1
    assert load({}, {**older, "INFERNO_LOG_LEVEL": "error"}).log_level == "error"


def test_an_empty_variable_is_not_given():
    assert load({}, {"INFERNO_LOG_LEVEL": ""}).sources["log_level"] == "default"


def test_repeated_settings_are_lists_in_the_file_and_have_commas_in_the_environment(file):
    both = (HostPort("127.0.0.1", 1), HostPort("::1", 2))
    assert load({"join": ["127.0.0.1:1", "[::1]:2"]}, {}).join == both
    assert load({}, {"INFERNO_JOIN": "127.0.0.1:1,[::1]:2"}).join == both
    assert load({"config": file('join = ["127.0.0.1:1", "[::1]:2"]')}, {}).join == both
    assert load({"config": file('join = "127.0.0.1:1"')}, {}).join == both[:1]


def test_a_file_gives_numbers_as_numbers_or_as_text(file):
    config = load({"config": file('kv_bytes = "1GiB"\nflights_max = 7\nwait_timeout_s = 0.5\n')}, {})
    assert (config.kv_bytes, config.flights_max, config.wait_timeout_s) == (1 << 30, 7, 0.5)


def test_an_entry_loads_no_model():
    assert load({"role": "entry"}, {}).models == ()


def test_a_name_is_drawn_if_none_is_given():
    first, second = load({}, {}).name, load({}, {}).name
    assert first != second
    assert BY_NAME["name"].value(first) == first


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"http": "8080"}, ["`8080`", "--http", "HOST:PORT"]),
        ({"flights_max": "0"}, ["`0`", "--flights-max", "1 to 1000000"]),
        ({"flights_max": "many"}, ["`many`", "whole number"]),
        ({"role": "boss"}, ["`boss`", "--role", "`worker`"]),
        ({"name": "a b"}, ["`a b`", "letters"]),
        ({"name": "a\nb"}, ["'a\\nb'"]),
        ({"device": "tpu"}, ["`tpu`", "cuda:N"]),
        ({"threads": "-1"}, ["`-1`", "0 to 1024"]),
        ({"http_body_bytes_max": "1GB" * 40}, ["..."]),
        ({"join": ["127.0.0.1:0"]}, ["`127.0.0.1:0`", "port 0"]),
        (
            {"http": "0.0.0.0:8080"},
            ["`0.0.0.0:8080`", "--http", "loopback", "authenticated", "127.0.0.1:8080"],
        ),
        ({"join": ["10.0.0.1:7946"]}, ["`10.0.0.1:7946`", "--join", "loopback", "python -m node keys"]),
        ({"bind": "10.0.0.1:7946"}, ["`10.0.0.1:7946`", "--bind", "mesh key", "--mesh-key-file"]),
        ({"bind": "0.0.0.0:7946", "mesh_key_file": "k"}, ["`0.0.0.0:7946`", "every address", "--advertise"]),
        ({"http": "10.0.0.1:80", "mesh_key_file": "k"}, ["`10.0.0.1:80`", "--http", "authenticated"]),
        ({"role": "entry", "model": ["x"]}, ["`entry`", "--model"]),
        ({"http": "127.0.0.1:5", "ops": "127.0.0.1:5"}, ["`127.0.0.1:5`", "--http", "--ops"]),
        ({"model": [str(number) for number in range(300)]}, ["256"]),
    ],
)
def test_a_refusal_names_value_setting_and_remedy(flags: dict, words: list[str]):
    error = refusal(flags)
    assert "\nhint: " in str(error)
    assert [word for word in words if word not in str(error)] == []
    assert str(error).count("\n") == 1


def test_unknown_names_are_refused_with_the_nearest_one(file):
    assert "did you mean `INFERNO_LOG_LEVEL`?" in str(refusal({}, {"INFERNO_LOGLEVEL": "x"}))
    assert "did you mean `log_level`?" in str(refusal({"config": file('loglevel = "x"')}))
    assert "no setting `http`" not in str(refusal({"config": file("[http]\nport = 1")}))
    assert "no setting `config`" in str(refusal({"config": file('config = "x"')}))


@pytest.mark.parametrize(
    "text", ["= 1", "a = ", "\x00", "[[[", 'join = [["a"]]', "name = 1979-05-27T07:32:00Z"]
)
def test_a_file_that_makes_no_sense_is_refused_by_name(file, text: str):
    path = file(text)
    assert path in str(refusal({"config": path}))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    assert "No such file" in str(refusal({"config": str(tmp_path / "none.toml")}))
    assert str(tmp_path) in str(refusal({"config": str(tmp_path)}))
    (tmp_path / "big.toml").write_text("#" * (2 << 20))
    assert "longer than" in str(refusal({"config": str(tmp_path / "big.toml")}))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    assert "not TOML" in str(refusal({"config": str(tmp_path / "latin.toml")}))


def test_a_changed_copy_knows_who_changed_it():
    config = load({}, {}).having("mesh", name="a", http=HostPort("127.0.0.1", 0))
    assert (config.name, config.explicit("http"), config.sources["http"], config.explicit("ops")) == (
        "a",
        True,
        "mesh",
        False,
    )


ports = st.integers(1, 65535).map(lambda port: f"127.0.0.1:{port}")
given_flags = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
        "bind": ports,
        "join": st.lists(ports, min_size=1, max_size=3),
        "model": st.lists(st.sampled_from(["ember-py", "/models/a b"]), min_size=1, max_size=2),
        "threads": st.sampled_from(["auto", "2"]),
        "kv_bytes": st.integers(1 << 20, 1 << 40).map(str),
        "step_budget_s": st.sampled_from(["5ms", "0.25", "1s"]),
        "data_dir": st.just("/var/lib/inferno"),
        "log_level": st.sampled_from(["debug", "error"]),
    },
)


@given(given_flags)
def test_flags_carry_a_config_to_another_process(flags: dict):
    from node.cli import arguments

    config = load(flags, {})
    again = load(arguments.parse(to_flags(config)).flags, {})
    assert attrs.evolve(again, name=config.name) == config
    assert isinstance(again, Config)
