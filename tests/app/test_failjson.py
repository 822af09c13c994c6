"""fail2ban's sample logs: what a `# failJSON` comment asks for, line by line, under each set of options.
Counterpart: `app.failjson` runs them; the corpus is fail2ban's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.app.failjson import run_failjson
from vedette.model.errors import RuleError
from vedette.rules.cases import report
from vedette.rules.failjson import split

FILTER = """[Definition]
failregex = ^\\s<F-MLFID>demo\\[\\d+\\]</F-MLFID>: denied <F-USER>\\S+</F-USER> from <ADDR>$
            ^\\s<F-MLFID>demo\\[\\d+\\]</F-MLFID>: <F-NOFAIL>seen</F-NOFAIL> <ADDR>$
            ^\\s<F-MLFID>demo\\[\\d+\\]</F-MLFID>: wrong$
            ^\\s<F-MLFID>demo\\[\\d+\\]</F-MLFID>: <F-MLFFORGET>bye</F-MLFFORGET>$
            <more-<mode>>
more-hard = ^\\sdemo: probed by <ADDR>$
more-normal =
mode = normal
datepattern = {^LN-BEG}
ignoreregex = 192\\.0\\.2\\.99$
"""


def told(tmp_path: Path, log: str) -> list[str]:
    (tmp_path / "demo.conf").write_text(FILTER)
    (tmp_path / "demo").write_text(log)
    errors: list[RuleError] = []
    return report(run_failjson([tmp_path / "demo"], [tmp_path], errors), errors)


def test_a_line_is_judged_by_the_comment_above_it(tmp_path: Path) -> None:
    log = """# failJSON: {"time": "2005-06-21T16:47:46", "match": true, "host": "192.0.2.1", "user": "bob"}
Jun 21 16:47:46 demo[1]: denied bob from 192.0.2.1
# failJSON: {"match": false}
Jun 21 16:47:46 demo[1]: hello
# failJSON: {"time": "2004-11-21T16:47:46", "match": true, "host": "192.0.2.1"}
Nov 21 16:47:46 demo[1]: denied bob from 192.0.2.1
# failJSON: {"match": false, "desc": "ignored"}
Jun 21 16:47:46 demo[3]: denied bob from 192.0.2.99
Jun 21 16:47:46 demo[3]: nothing is said of this one, and nothing matches
"""
    assert told(tmp_path, log) == ["4 passed, 0 failed"]


def test_disagreements_are_told_one_by_one(tmp_path: Path) -> None:
    log = """# failJSON: {"time": "2005-06-21T16:47:47", "match": true, "host": "192.0.2.2"}
Jun 21 16:47:46 demo[1]: denied bob from 192.0.2.1
# failJSON: {"match": true}
Jun 21 16:47:46 demo[1]: hello
Jun 21 16:47:46 demo[2]: denied bob from 192.0.2.1
# failJSON: {"match"
Jun 21 16:47:46 demo: hello
"""
    lines = told(tmp_path, log)
    assert lines[-1] == "0 passed, 4 failed"
    assert len(lines) == 6
    assert any("host: expected '192.0.2.2', found '192.0.2.1'" in line for line in lines)
    assert any("time: " in line for line in lines)
    assert any("demo:5" in line and "is none" in line for line in lines)


def test_options_repeat_each_line_and_conditions_choose(tmp_path: Path) -> None:
    log = """# filterOptions: [{}, {"mode": "hard"}]
# failJSON: {"match": false, "constraint": "opts.get('mode') != 'hard'"}
Jun 21 16:47:46 demo: probed by 192.0.2.1
# failJSON: {"match": true, "host": "192.0.2.1", "constraint": "opts.get('mode') == 'hard'"}
Jun 21 16:47:46 demo: probed by 192.0.2.1
# failJSON: {"match": true, "constraint": "name == 'other'"}
Jun 21 16:47:46 demo: hello
# filterOptions: [{"test.condition": "name=='other'"}]
# failJSON: {"match": true}
Jun 21 16:47:46 demo: hello
"""
    assert told(tmp_path, log) == ["2 passed, 0 failed"]
    assert told(tmp_path, log + '# filterOptions: {"test.condition": "__import__(1)"}\nhello\n')[-1] == (
        "2 passed, 1 failed"
    )


def test_lines_of_one_connection_make_one_failure(tmp_path: Path) -> None:
    log = """# failJSON: {"match": false, "desc": "no address yet"}
Jun 21 16:47:46 demo[7]: wrong
# failJSON: {"match": true, "host": "192.0.2.1", "attempts": 2}
Jun 21 16:47:47 demo[7]: seen 192.0.2.1
# failJSON: {"match": false, "desc": "already told"}
Jun 21 16:47:47 demo[7]: seen 192.0.2.1
# failJSON: {"match": true, "host": "192.0.2.1"}
Jun 21 16:47:48 demo[7]: bye
# failJSON: {"match": false, "desc": "forgotten"}
Jun 21 16:47:48 demo[7]: wrong
"""
    assert told(tmp_path, log) == ["5 passed, 0 failed"]


def test_a_pattern_that_explodes_ends(tmp_path: Path) -> None:
    (tmp_path / "demo.conf").write_text("[Definition]\nfailregex = ^(?:a+)+b(?:c|c)+d <ADDR>$\n")
    (tmp_path / "demo").write_text('# failJSON: {"match": false}\n' + "a" * 5000 + "\n")
    errors: list[RuleError] = []
    assert report(run_failjson([tmp_path / "demo"], [tmp_path], errors), errors) == ["1 passed, 0 failed"]


def test_a_filter_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "other").write_text('# failJSON: {"match": true}\nhello\n')
    errors: list[RuleError] = []
    assert run_failjson([tmp_path / "other"], [tmp_path], errors) == []
    assert "no filter 'other'" in str(errors[0])


def test_logs_are_told_from_rules(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text('# failJSON: {"match": true}\nhello\n')
    (tmp_path / "rule.yml").write_text("title: x\n")
    assert split([tmp_path]) == ([tmp_path / "demo"], [tmp_path])
    assert split([tmp_path / "demo", tmp_path / "rule.yml"]) == ([tmp_path / "demo"], [tmp_path / "rule.yml"])


@pytest.mark.corpus
def test_fail2bans_own_samples_by_its_own_filters(corpus: Path) -> None:
    logs, others = split([corpus / "fail2ban" / "logs"])
    assert not others
    errors: list[RuleError] = []
    results = run_failjson(
        [log for log in logs if not log.name.startswith("zzz-")], [corpus / "fail2ban" / "config"], errors
    )
    assert report(results, errors) == ["860 passed, 0 failed"]


def test_without_filters_our_own_rules_judge(tmp_path: Path) -> None:
    (tmp_path / "dropbear").write_text(
        """# failJSON: {"time": "2005-06-21T16:47:46", "match": true, "host": "192.0.2.1", "user": "root"}
Jun 21 16:47:46 box dropbear[7]: Bad password attempt for 'root' from 192.0.2.1:4022
# failJSON: {"match": false}
Jun 21 16:47:46 box dropbear[7]: Password auth succeeded for 'root' from 192.0.2.1:4022
# failJSON: {"match": true, "host": "192.0.2.2"}
Jun 21 16:47:46 box dropbear[7]: something new from 192.0.2.2
Jun 21 16:47:46 box dropbear[7]: Bad password attempt for 'root' from 192.0.2.3:4022
"""
    )
    errors: list[RuleError] = []
    lines = report(run_failjson([tmp_path / "dropbear"], [], errors), errors)
    assert lines[-1] == "2 passed, 2 failed"
    assert "dropbear:6" in lines[0]
    assert "dropbear:7" in lines[1]


@pytest.mark.corpus
@pytest.mark.parametrize("service", ["dropbear", "proftpd", "pure-ftpd"])
def test_fail2bans_own_samples_by_our_rules(corpus: Path, service: str) -> None:
    errors: list[RuleError] = []
    results = run_failjson([corpus / "fail2ban" / "logs" / service], [], errors)
    assert not errors
    assert sum(result.passed for result in results) >= 0.9 * len(results)
    wrong = [text for result in results for text in result.disagreements if "is taken for" in text]
    assert not wrong
