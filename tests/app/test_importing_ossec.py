"""OSSEC's installation taken over: what comes out loads, blocks nobody, and says what is missing.
Counterpart: `app.importing_ossec`."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.app.importing import Equal, importer_of, written
from vedette.config.load import load_settings
from vedette.model.decisions import Rung
from vedette.model.errors import VedetteError
from vedette.model.rules import NotifyStep
from vedette.rules.loading import load

CONF = """
<ossec_config>
  <global><email_to>ops@example.org</email_to><smtp_server>localhost</smtp_server>
    <white_list>192.0.2.1</white_list><white_list>gw.example.org</white_list></global>
  <rules><include>door_rules.xml</include></rules>
  <alerts><log_alert_level>1</log_alert_level><email_alert_level>12</email_alert_level></alerts>
  <localfile><log_format>syslog</log_format><location>/var/log/auth.log</location></localfile>
  <localfile><log_format>json</log_format><location>/var/log/app-%Y.json</location></localfile>
  <localfile><log_format>multi-line: 3</log_format><location>/var/log/odd.log</location></localfile>
  <localfile><log_format>full_command</log_format><command>df -P</command></localfile>
  <localfile><log_format>eventlog</log_format><location>Security</location></localfile>
  <syscheck><frequency>3600</frequency><directories realtime="yes">/etc,/opt/app</directories>
    <ignore>/etc/mtab</ignore><ignore type="sregex">.log$</ignore></syscheck>
  <rootcheck/>
  <remote><connection>secure</connection></remote>
  <command><name>drop</name><executable>firewall-drop.sh</executable><expect>srcip</expect></command>
  <command><name>lock</name><executable>disable-account.sh</executable><expect>user</expect></command>
  <active-response><command>drop</command><location>all</location><level>6</level><timeout>600</timeout></active-response>
  <active-response><command>lock</command><rules_id>101</rules_id></active-response>
</ossec_config>
"""
RULES = """
<group name="door,">
  <rule id="1" level="0" noalert="1"><category>syslog</category><description>all</description></rule>
  <rule id="101" level="6"><match>refused</match><description>refused</description></rule>
  <rule id="102" level="10" frequency="3" timeframe="60"><if_matched_sid>101</if_matched_sid><same_source_ip />
    <description>often</description></rule>
</group>
"""


@pytest.fixture
def ossec(tmp_path: Path) -> Path:
    etc = tmp_path / "ossec" / "etc"
    (tmp_path / "ossec" / "rules").mkdir(parents=True)
    (etc / "lists").mkdir(parents=True)
    (etc / "ossec.conf").write_text(CONF)
    (etc / "decoder.xml").write_text('<decoder name="door"><program_name>door</program_name></decoder>')
    (etc / "lists" / "keys").write_text("a:b\n")
    (tmp_path / "ossec" / "rules" / "door_rules.xml").write_text(RULES)
    (tmp_path / "ossec" / "rules" / "unused_rules.xml").write_text("<group name='x'/>")
    return tmp_path / "ossec"


def test_an_installation_becomes_a_configuration_in_simulate(ossec: Path, tmp_path: Path):
    to = tmp_path / "new"
    imported = importer_of(ossec).read(ossec)
    for name, data in {"vedette.yml": written(imported.settings, to), **imported.files}.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(data)
    loaded = load_settings(to / "vedette.yml")
    assert [rule.id for rule in load(loaded.rules.paths).rules] == ["1", "101", "102"]
    assert loaded.rules.steps == {"101": NotifyStep.STORE, "102": NotifyStep.STORE}
    assert loaded.respond == {"102": Rung.SIMULATE}
    assert loaded.blocking.enforcers == ("nftables",)
    assert [entry.network for entry in loaded.blocking.allowlist] == ["192.0.2.1/32"]
    assert [file.paths for file in loaded.sources.file] == [
        ("/var/log/auth.log", "/var/log/odd.log"),
        ("/var/log/app-*.json",),
    ]
    assert loaded.sources.integrity is not None
    assert (loaded.sources.integrity.trees, loaded.sources.integrity.full_every) == (("/etc", "/opt/app"), "3600s")
    assert loaded.sources.integrity.leave_out == ("/etc/mtab",)
    assert loaded.sources.rootkit is not None
    assert set(loaded.notify.receivers) == {"mail"}
    assert loaded.alerts.route is not None
    assert loaded.alerts.route.routes[0].matchers == ('level=~"high|critical"',)


def test_what_has_no_equal_is_told_with_its_place(ossec: Path):
    remarks = importer_of(ossec).read(ossec).remarks
    missing = [f"{remark.place}: {remark.words}" for remark in remarks if remark.equal is Equal.NONE]
    for words in ("gw.example.org", "df -P", "eventlog", "multi-line", ".log$", "<remote>", "disable-account"):
        assert any(words in text for text in missing), words
    assert all("ossec.conf:" in text for text in missing)


def test_rules_that_are_included_and_not_there_are_told(ossec: Path):
    conf = ossec / "etc" / "ossec.conf"
    conf.write_text(CONF.replace("<include>door", "<include>gone_rules.xml</include><include>door"))
    remarks = importer_of(ossec).read(ossec).remarks
    assert [remark.words for remark in remarks if "gone_rules.xml" in remark.words and remark.equal is Equal.NONE]
    assert not [remark for remark in remarks if "door_rules.xml" in remark.words]


def test_a_configuration_that_is_named_is_the_whole_installation(ossec: Path):
    conf = ossec / "etc" / "ossec.conf"
    (ossec / "etc" / "stray.xml").write_text("<group name='x'/>")
    by_name, by_folder = (set(importer_of(path).read(path).files) for path in (conf, ossec))
    assert any(name.endswith("door_rules.xml") for name in by_name)
    assert {name for name in by_name if name.endswith("rules.xml")} == {
        name for name in by_folder if name.endswith("rules.xml")
    }


def test_a_folder_without_a_configuration_is_no_installation(tmp_path: Path):
    with pytest.raises(VedetteError, match="no installation"):
        importer_of(tmp_path)
