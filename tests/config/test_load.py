from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from vedette.config.load import load_settings, schema
from vedette.config.settings import Settings
from vedette.model.decisions import Rung
from vedette.model.errors import ConfigError
from vedette.text.documents import parse_documents


def write(folder: Path, text: str, name: str = "vedette.yml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_no_configuration_is_a_working_one(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "")) == Settings()
    assert load_settings(write(tmp_path, "version: 1\n")).responding.rungs == {}


def test_the_rungs_reach_the_respond_stage(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, "version: 1\nrespond:\n  ssh-brute-force-address: enforce\n"))
    assert settings.responding.rungs == {"ssh-brute-force-address": Rung.ENFORCE}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("version: 1\nrespond:\n  a: enforce\n  a: observe\n", "4:3", "there twice"),
        ("version: 1\nrespond:\n  a: canary\n", "", "name the hosts under `blocking: canary_hosts:`"),
        ("version: 1\nresspond: {}\n", "2:1", "did you mean respond?"),
        ("version: 2\n", "1:1", "Input should be 1"),
        ("rules: {}\n", "1:1", "version: 1"),
        ("version: 1\nrespond:\n  a: shoot\n", "3:3", "respond.a"),
        ("version: 1\nsources:\n  file:\n    - paths: [relative.log]\n", "4:7", "not absolute"),
        ("version: 1\nsources: [\n", "3:1", "expected"),
        ("- a\n", "1:1", "mapping"),
        ("version: 1\n1: 2\n", "2:1", "is not a setting"),
        ("version: 1\nsources: !none\n  - a\n", "2:10", "without a tag"),
        ("version: 1\na: &a [*a]\n", "2:8", "stands complete"),
        ("version: 1\na: " + "[" * 1000, "2:36", "nested deeper"),
        ("version: 1\n---\nversion: 1\n", "3:1", "two documents"),
        ("version: .nan\n", "1:10", "not a finite number"),
        (
            "version: 1\na: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh")),
            "7:",
            "more than 200000 nodes",
        ),
        ("version: 1\nblocking:\n  rungs: {a: enforce}\n", "", "stand under `respond:`"),
        ("version: 1\nblocking:\n  floor:\n    - 10.0.0.0/8\n    - web03\n", "5:7", "not an address"),
        (
            "version: 1\nnotify:\n  receivers:\n    ops:\n      type: email\n      too: [a@b.c]\n      to: [a@b.c]\n",
            "6:7",
            "not a setting",
        ),
    ],
)
def test_errors_say_where_and_what(tmp_path: Path, text: str, place: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}:{place}" if place else str(path))
    assert words in str(caught.value)


def test_yaml_is_1_2(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, "version: 1\ndata: no\n"))
    assert settings.data == Path("no")
    words = (
        "{a: 010, b: 0o10, c: 0x1F, d: +1.5e3, e: 'true', f: TRUE, g: ~, h: 1_0, i: 12:30, j: -.5, k: on, l: !!str 1}"
    )
    (found,) = parse_documents(words.encode(), "a.yml", core=True)
    assert found.data == {
        **{"a": 10, "b": 8, "c": 31, "d": 1500.0, "e": "true", "f": True, "g": None},
        **{"h": "1_0", "i": "12:30", "j": -0.5, "k": "on", "l": "1"},
    }


def test_conf_d_is_joined_and_nothing_is_set_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\nrespond: {a: observe}\nblocking: {floor: [10.0.0.0/8]}\n")
    write(tmp_path, "respond: {b: enforce}\nblocking: {floor: [192.0.2.0/24]}\n", "conf.d/10.yml")
    settings = load_settings(path)
    assert settings.respond == {"a": Rung.OBSERVE, "b": Rung.ENFORCE}
    assert settings.blocking.floor == ("10.0.0.0/8", "192.0.2.0/24")
    twice = write(tmp_path, "respond: {a: enforce}\n", "conf.d/20.yml")
    with pytest.raises(ConfigError, match=r"20\.yml:1:11: a is already set in .*vedette\.yml:2:11"):
        load_settings(path)
    twice.write_text("respond: &own {c: enforce}\nblocking: *own\n")
    with pytest.raises(ConfigError, match=r"blocking\.c: is not a setting"):
        load_settings(path)
    twice.write_text("blocking: {floor: [name]}\n")
    with pytest.raises(ConfigError, match=r"20\.yml:1:20: blocking\.floor"):
        load_settings(path)


def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    path = write(
        tmp_path, "version: 1\nnotify:\n  receivers:\n    p: {type: pagerduty, routing_key: R0123456789ABCDEF}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert "R0123456789ABCDEF" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "none.yml")
    (tmp_path / "bad.yml").write_bytes(b"version: 1\n# \xff\n")
    with pytest.raises(ConfigError, match=r"bad\.yml:2:3: is not UTF-8"):
        load_settings(tmp_path / "bad.yml")


def test_the_schema_names_every_part() -> None:
    assert set(schema()["properties"]) == set(Settings.model_fields)


@pytest.mark.parametrize("name", ["vedette.yml", "conf.d/more.yml"])
def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "more.yml").write_text("respond: {ssh-brute-force-address: enforce}\n")
    main = tmp_path / "vedette.yml"
    main.write_text("version: 1\n")
    load_settings(main)
    (tmp_path / name).chmod(0o666)
    with pytest.raises(ConfigError, match="everybody may write") as caught:
        load_settings(main)
    assert str(caught.value.location) == str(tmp_path / name)
