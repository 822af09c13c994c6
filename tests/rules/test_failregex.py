"""fail2ban's filters: layers, includes, names and tags put in, patterns checked, hostile files refused with a place.
Counterpart: `test_failjson` runs them over sample logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.model.errors import RuleError
from vedette.rules.fail2ban_config import layers, read_config
from vedette.rules.failregex import call_of, filter_files, read_filter, written_out


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(text)
    return folder


def patterns(folder: Path, name: str = "demo", **options: str) -> list[str]:
    return [one.text for one in read_filter(filter_files(folder, name), options).failures]


BASE = "[DEFAULT]\n_daemon = \\S*\n[Definition]\n"


def test_names_tags_and_options(tmp_path: Path) -> None:
    written(
        tmp_path,
        common_conf="[INCLUDES]\nafter = common.local\n[DEFAULT]\nmark = one\nline = <mark>-%(mark)s\n",
        demo_conf=(
            "[INCLUDES]\nbefore = common.conf\n[Definition]\n# no option\n"
            "failregex = ^%(line)s <ADDR>$ ; a remark\n\n            ^<kind-<mode>> <ADDR>$\n            <kind-none>\n"
            "kind-normal = plain\nkind-none =\nkind-hard = very %(mark)s\nmode = normal\n"
        ),
    )
    assert [text.split(" ")[0] for text in patterns(tmp_path)] == ["^one-one", "^plain"]
    assert patterns(tmp_path, mode="hard")[1].startswith("^very one ")
    written(tmp_path, common_local="[DEFAULT]\nmark = two\n")
    assert patterns(tmp_path)[0].startswith("^two-two ")


def test_a_local_file_goes_over_the_other_and_knows_what_was_there(tmp_path: Path) -> None:
    written(
        tmp_path,
        demo_conf="[Definition]\nfailregex = ^old <ADDR>$\n[Init]\nmaxlines = 3\n",
        demo_local="[Definition]\nfailregex = %(known/failregex)s\n            ^new <ADDR>$\n",
    )
    found = read_filter(filter_files(tmp_path, "demo"))
    assert [one.text[3:].lstrip("m:")[:4] for one in found.failures] == ["^old", "^new"]
    assert found.lines == 3
    assert found.failures[0].origin.file.endswith("demo.local")
    assert found.failures[0].origin.line == 2


def test_layers_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "jail.d").mkdir()
    for name, value in (("jail.conf", 1), ("jail.local", 3), ("jail.d/b.conf", 2), ("jail.d/a.local", 4)):
        (tmp_path / name).write_text(f"[DEFAULT]\nmaxretry = {value}\n")
    files = layers(tmp_path, "jail")
    assert [file.name for file in files] == ["jail.conf", "b.conf", "jail.local", "a.local"]
    assert read_config(files).get("sshd", "maxretry") == "4"


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("<HOST>", ["ip4", "ip6", "dns"]),
        ("<ADDR>", ["ip4", "ip6"]),
        ("<F-ID>x</F-ID> <F-USER>y</F-USER>", ["fid", "user"]),
        ("<F-ALT_USER_1>y</F-ALT_USER_1>", ["alt_user_1"]),
        ("</F-USER> <other>", []),
        ("a<SKIPLINES>b<SKIPLINES>c", ["skiplines0", "skiplines1"]),
    ],
)
def test_tags_become_groups(text: str, groups: list[str]) -> None:
    import re

    assert list(re.compile(written_out(text)).groupindex) == groups


def test_options_of_a_call() -> None:
    from vedette.model.errors import Location

    name, options = call_of("sshd[mode=aggressive, x=\"a, b\", y='c']", Location("jail.conf", 3))
    assert (name, options) == ("sshd", {"mode": "aggressive", "x": "a, b", "y": "c"})
    with pytest.raises(RuleError, match=r"jail\.conf:3"):
        call_of("sshd[mode", Location("jail.conf", 3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("failregex = ^a(b <ADDR>", "demo.conf:2: .*unterminated|demo.conf:2: .*missing"),
        ("failregex = ^nobody", "demo.conf:2: the pattern says nobody"),
        ("failregex = %(missing)s <ADDR>", "demo.conf:2: .*no 'missing'"),
        ("failregex = %(failregex)s <ADDR>", "demo.conf:2: .*without end"),
        ("failregex = <a>\na = x<b>\nb = y<a>", "demo.conf:2: .*without end"),
        ("a = <b><b><b><b>\nfailregex = <a><a><a><a>\nb = <a><a><a>", "demo.conf:3: .*without end"),
        ("failregex = ^<ADDR>\nmaxlines = many", "demo.conf:3: 'maxlines' is a number"),
        ("failregex = ^<ADDR>\ndatepattern = (%%Y", "demo.conf:3: datepattern"),
        ("failregex = ^<ADDR>\nfailregex = ^<ADDR>", "demo.conf:3: option 'failregex' is there twice"),
        ("ignoreregex = x", "no failregex"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    written(tmp_path, demo_conf=f"[Definition]\n{text}\n")
    with pytest.raises(RuleError) as refused:
        patterns(tmp_path)
    import re

    assert re.search(words, str(refused.value)), refused.value


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    written(
        tmp_path,
        a_conf="[INCLUDES]\nbefore = demo.conf\n[DEFAULT]\nmark = x\n",
        demo_conf="[INCLUDES]\nbefore = a.conf\n[Definition]\nfailregex = ^%(mark)s <ADDR>\n",
    )
    assert patterns(tmp_path)[0].startswith("^x ")
    for number in range(30):
        (tmp_path / f"n{number}.conf").write_text(f"[INCLUDES]\nbefore = n{number + 1}.conf\n[DEFAULT]\n")
    with pytest.raises(RuleError, match="without end"):
        read_config([tmp_path / "n0.conf"])
