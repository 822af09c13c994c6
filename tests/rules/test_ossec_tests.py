"""OSSEC's and Wazuh's `.ini` tests: what is one case, and when it passes.
Counterpart: `rules.ossec_tests`, run by `app.ossec_testing`."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.app.ossec_testing import OssecTester, run_ossec
from vedette.model.errors import RuleError
from vedette.rules.loading import load
from vedette.rules.ossec import Dialect
from vedette.rules.ossec_tests import Verdict, read_tests, split

RULES = r"""
<decoder name="door">
  <program_name>^door</program_name>
  <regex>^(\w+) by (\S+)</regex>
  <order>action,srcip</order>
</decoder>
<group name="door,">
  <rule id="1" level="0" noalert="1"><category>syslog</category><description>all</description></rule>
  <rule id="100" level="0"><decoded_as>door</decoded_as><description>door</description></rule>
  <rule id="101" level="5"><if_sid>100</if_sid><action>refused</action><description>refused</description></rule>
  <rule id="102" level="10" frequency="3" timeframe="60"><if_matched_sid>101</if_matched_sid><same_source_ip />
    <description>often</description></rule>
  <rule id="103" level="3"><if_sid>100</if_sid><time>8 am - 5 pm</time><match>opened</match>
    <description>day</description></rule>
</group>
"""
LINE = "Feb  9 11:44:56 gw door[1]: refused by 192.0.2.{}"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.xml"
    path.write_text(RULES)
    return path


def ini(folder: Path, text: str) -> Path:
    path = folder / "door.ini"
    path.write_text(text)
    return path


def test_equal_keys_are_one_session_in_wazuh_and_the_last_in_ossec(tmp_path: Path):
    path = ini(
        tmp_path,
        "; a comment\n[often]\nlog 1 pass = one 100%% sure\nlog 1 pass = two\nlog 2 fail = three\nother: x\n"
        "rule = 102\nalert = 10\ndecoder = door\n",
    )
    assert [case.lines for case in read_tests(path, Dialect.WAZUH)] == [("one 100% sure", "two"), ("three",)]
    found = read_tests(path, Dialect.OSSEC)
    assert [(case.lines, case.refused) for case in found] == [(("two",), False), (("three",), True)]


def test_a_case_passes_by_rule_level_and_decoder(tmp_path: Path):
    path = ini(tmp_path, "[a]\nlog 1 pass = x\nlog 1 fail = x\nrule = 5\nalert = 3\ndecoder = Door\n")
    passing, failing = read_tests(path, Dialect.WAZUH)
    assert passing.judged(Verdict("5", "3", "door")).passed
    assert not failing.judged(Verdict("5", "3", "door")).passed
    for other in (Verdict("6", "3", "door"), Verdict("5", "4", "door"), Verdict("5", "3", "")):
        assert not passing.judged(other).passed
        assert failing.judged(other).passed


def test_an_empty_rule_means_that_nobody_is_told(tmp_path: Path):
    (case,) = read_tests(ini(tmp_path, "[a]\nlog 1 pass = x\nrule =\nalert =\ndecoder = door\n"), Dialect.WAZUH)
    assert case.judged(Verdict("", "", "door")).passed
    assert case.judged(Verdict("5", "0", "door")).passed
    assert not case.judged(Verdict("5", "3", "door")).passed


@pytest.mark.parametrize("text", ["log 1 pass = x\n", "[a]\nnothing\n", "[a]\nlog 1 pass = x\n"])
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, text: str):
    with pytest.raises(RuleError, match=r"door\.ini"):
        read_tests(ini(tmp_path, text), Dialect.WAZUH)


def test_a_session_is_judged_by_its_last_line(rules: Path):
    tester = OssecTester(load([rules], dialect="wazuh").rules)
    assert tester([LINE.format(1)] * 2) == Verdict("101", "5", "door")
    assert tester([LINE.format(1)] * 3) == Verdict("102", "10", "door")
    assert tester([LINE.format(1), LINE.format(2), LINE.format(1)]) == Verdict("101", "5", "door")
    assert tester(["Feb  9 03:00:00 gw door[1]: opened by x"]) == Verdict("103", "3", "door")
    assert tester(["Feb  9 03:00:00 gw other[1]: x"]) == Verdict("", "", "")


def test_every_disagreement_and_every_broken_file_is_told(tmp_path: Path, rules: Path):
    good = ini(tmp_path, f"[a]\nlog 1 pass = {LINE.format(1)}\nrule = 101\nalert = 6\ndecoder = door\n")
    broken = tmp_path / "broken.ini"
    broken.write_text("nothing")
    unreadable: list[RuleError] = []
    (result,) = run_ossec([good, broken], [rules], "auto", unreadable)
    assert result.disagreements == ("expected rule 101, level 6, decoder door, came rule 101, level 5, decoder door",)
    assert [error.location.file for error in unreadable if error.location] == [str(broken)]


def test_ini_files_are_found_among_other_paths(tmp_path: Path):
    path = ini(tmp_path, "")
    other = tmp_path / "own.yml"
    assert split([path, other]) == ([path], [other])
    assert split([tmp_path]) == ([path], [])


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "least", "most"),
    [
        # As the server is configured; and every file there is, in byte order.
        (("ossec-server.conf",), 257, 4),
        (("decoder.xml", "rules"), 250, 11),
    ],
)
def test_agreement_with_ossec_own_tests(corpus: Path, rules: tuple[str, ...], least: int, most: int):
    unreadable: list[RuleError] = []
    paths = [corpus / "ossec/etc" / name for name in rules]
    results = run_ossec(sorted((corpus / "ossec/tests").glob("*.ini")), paths, "auto", unreadable)
    passed = sum(result.passed for result in results)
    assert unreadable == []
    assert passed >= least
    assert len(results) - passed <= most


@pytest.mark.corpus
@pytest.mark.slow
def test_agreement_with_the_tests_of_wazuh(corpus: Path):
    """Each with the rules that its own runner puts beside it: those of other tests have the same numbers."""
    wazuh = corpus / "wazuh"
    base = [wazuh / "rules", wazuh / "decoders", wazuh / "lists"]
    plain = [
        path for path in sorted((wazuh / "tests").glob("*.ini")) if not path.stem.startswith(("test_", "overwrite"))
    ]
    results = run_ossec(plain, base, "auto", unreadable := [])
    tested = {
        "overwrite": "test_overwrite*.xml",
        "test_expr_negation": "test_expr_negation*.xml",
        "test_features": "test_[rd]*s.xml",
        "test_osmatch_regex": "test_osmatch*.xml",
        "test_osregex_regex": "test_osregex*.xml",
        "test_pcre2_regex": "test_pcre2*.xml",
        "test_static_filters": "test_static*.xml",
    }
    for name, beside in tested.items():
        files = sorted((wazuh / "test_ruleset").glob(beside))
        results += run_ossec([wazuh / "tests" / f"{name}.ini"], [*base, *files], "wazuh", unreadable)
    assert unreadable == []
    assert [text for result in results for text in result.disagreements] == []
    assert len(results) >= 277
