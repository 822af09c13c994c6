"""Records as OSSEC sees them: headers cut its way, decoders with parents, offsets, several patterns, plug-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.parsers.ossec import Cut, OssecDecoder, cut_header
from vedette.parsers.ossec_decoders import DecoderTable, read_decoders

DECODERS = r"""
<decoder name="sshd">
  <program_name>^sshd</program_name>
</decoder>
<decoder name="sshd-success">
  <parent>sshd</parent>
  <prematch>^Accepted</prematch>
  <regex offset="after_prematch">^ \S+ for (\S+) from (\S+) port (\d+)</regex>
  <order>user, srcip, srcport</order>
  <fts>name, user, srcip</fts>
</decoder>
<decoder name="sshd-own">
  <parent>sshd</parent>
  <use_own_name>true</use_own_name>
  <prematch offset="after_parent">^Disconnected</prematch>
</decoder>
<decoder name="sshd-parts">
  <parent>sshd</parent>
  <regex>^Failed \S+ for (\S+)</regex>
  <order>dstuser</order>
</decoder>
<decoder name="sshd-parts">
  <parent>sshd</parent>
  <regex offset="after_regex"> from (\S+)</regex>
  <order>srcip</order>
</decoder>
<decoder name="web">
  <type>web-log</type>
  <prematch type="pcre2">^\S+ - - \[</prematch>
  <regex type="pcre2">^(\S+) .*?"(\w+) (\S+)(?= HTTP)|^never(x)</regex>
  <order>srcip, action, url</order>
</decoder>
<decoder name="json">
  <prematch>^{\s*"</prematch>
  <plugin_decoder>JSON_Decoder</plugin_decoder>
</decoder>
"""


def table(tmp_path: Path, text: str = DECODERS) -> DecoderTable:
    path = tmp_path / "decoder.xml"
    path.write_text(text)
    return read_decoders([path])


@pytest.fixture
def decoder(tmp_path: Path) -> OssecDecoder:
    found = table(tmp_path)
    assert found.errors == []
    return OssecDecoder(found)


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("Feb  9 11:44:56 gw sshd[12]: hello", Cut("gw", "sshd", "hello")),
        ("Feb  9 11:44:56 gw cron: hello", Cut("gw", "cron", "hello")),
        ("Feb  9 11:44:56 gw su(pam_unix)[1]: hello", Cut("gw", "su(pam_unix)", "hello")),
        ("Feb  9 11:44:56 gw test[1]:hello", Cut("gw", "test", "hello")),
        ("2009-05-22T09:36:46.214994-07:00 gw sshd[1]: x", Cut("gw", "sshd", "x")),
        ("2020-03-23 06:47:42.801612-0700  localhost sshd[3186]: x", Cut("localhost", "sshd", "x")),
        ("2015 Dec 29 10:00:01 gw sshd[1]: x", Cut("gw", "sshd", "x")),
        ("Feb  9 11:44:56 sshd: from Solaris", Cut(None, "sshd", "from Solaris")),
        ("Feb  9 11:44:56 gw sshd[1]: [ID 702911 auth.notice] x", Cut("gw", "sshd", "x")),
        ("Feb  9 11:44:56 10.0.0.1 %SEC-6-X: list", Cut("10.0.0.1", None, "%SEC-6-X: list")),
        ("Feb  9 11:44:56 gw auth|security:info sshd[1]: x", Cut("gw", "sshd", "x")),
        ("10/20-20:43:32.334621  [**] x", Cut(None, None, "[**] x")),
        ("[Fri Feb 11 18:06:35 2004] [warn] x", Cut(None, None, "[warn] x")),
        ("[Time 2006.12.28 15:53:55 UTC] [Sender sshd] [Message hi] [Message no] [Host h]", Cut("h", "sshd", "hi")),
        ("no header", Cut(None, None, "no header")),
    ],
)
def test_headers_are_cut_as_ossec_cuts_them(line: str, cut: Cut):
    assert cut_header(line) == cut


def test_a_child_gives_the_fields_and_its_parent_the_name(decoder: OssecDecoder):
    found = decoder.decode("Feb  9 11:44:56 gw sshd[1]: Accepted password for ann from 192.0.2.1 port 22 ssh2")
    assert (found.decoder, found.category) == ("sshd", "syslog")
    assert found.fields == {"dstuser": "ann", "srcip": "192.0.2.1", "srcport": "22"}
    assert found.first == '["sshd", "sshd", "ann", "192.0.2.1"]'


def test_siblings_of_one_name_go_on_from_one_another(decoder: OssecDecoder):
    found = decoder.decode("Feb  9 11:44:56 gw sshd[1]: Failed password for bob from 192.0.2.7 port 1")
    assert found.fields == {"dstuser": "bob", "srcip": "192.0.2.7"}
    assert found.first == ""


def test_a_decoder_may_keep_its_own_name(decoder: OssecDecoder):
    assert decoder.decode("Feb  9 11:44:56 gw sshd[1]: Disconnected from x").decoder == "sshd-own"


def test_groups_that_took_no_part_are_passed_over_and_looking_ahead_is_understood(decoder: OssecDecoder):
    found = decoder.decode('192.0.2.9 - - [1/Apr/2014:00:00:01 -0500] "GET /x HTTP/1.1" 200 1')
    assert found.category == "web-log"
    assert found.fields == {"srcip": "192.0.2.9", "action": "GET", "url": "/x"}


def test_json_becomes_fields_by_their_path(decoder: OssecDecoder):
    found = decoder.decode('{"A": {"b": 1, "c": null, "d": [1,"x"]}, "user": "ann", "ok": true} tail')
    assert found.fields == {"a.b": "1", "a.c": "null", "a.d": '[1,"x"]', "dstuser": "ann", "ok": "true"}
    assert decoder.decode('{"' + '[{"a":' * 5000).fields == {}


def test_what_nobody_knows_has_no_decoder(decoder: OssecDecoder):
    assert decoder.decode("Feb  9 11:44:56 gw ntpd[1]: x").decoder == ""


def test_an_archived_line_is_decoded_as_the_agent_sent_it(decoder: OssecDecoder):
    found = decoder.decode(
        "2015 Jan 26 10:32:34 (web1) 192.0.2.64->/var/log/auth.log Jan 26 10:32:29 web1 sshd[1]: Disconnected from x"
    )
    assert found.decoder == "sshd-own"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<decoder><prematch>x</prematch></decoder>", "without a name"),
        ('<decoder name="a"><parent>none</parent></decoder>', "no decoder 'none'"),
        ('<decoder name="a"><prematch>(x</prematch></decoder>', "no pattern"),
        ('<decoder name="a"><regex offset="before">x</regex></decoder>', "no offset"),
        ('<decoder name="a"><wrong>x</wrong></decoder>', "unknown element"),
        ('<decoder name="a"><prematch type="perl">x</prematch></decoder>', "no pattern type"),
    ],
)
def test_a_broken_decoder_is_told_with_its_place_and_the_rest_loads(tmp_path: Path, text: str, words: str):
    found = table(tmp_path, "\n" + text + '<decoder name="good"><prematch>x</prematch></decoder>')
    assert [one.name for one in found.unnamed] == ["good"]
    (error,) = found.errors
    assert words in str(error)
    assert "decoder.xml:2" in str(error)


def test_a_pattern_that_explodes_stops_at_its_limit(tmp_path: Path):
    found = table(tmp_path, r'<decoder name="a"><prematch type="pcre2">^(?=(a+)+$)(a+)+$</prematch></decoder>')
    assert OssecDecoder(found).decode("a" * 5000 + "!").decoder == ""
