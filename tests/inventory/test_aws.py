from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vedette.inventory.aws import AwsWords, read_aws
from vedette.model.errors import VedetteError
from vedette.model.ports import Expectations
from vedette.model.reasons import InventoryReason
from vedette.testing.clock import FakeClock


def permission(protocol: str, first: int | None = None, last: int | None = None, **more: Any) -> dict[str, Any]:
    ports = {} if first is None else {"FromPort": first, "ToPort": last}
    none: dict[str, Any] = {"IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": [], "UserIdGroupPairs": []}
    return {"IpProtocol": protocol, **ports, **none, **more}


def cidr(*networks: str) -> dict[str, Any]:
    return {
        "IpRanges": [{"CidrIp": one, "Description": "x"} for one in networks if ":" not in one],
        "Ipv6Ranges": [{"CidrIpv6": one} for one in networks if ":" in one],
    }


def group(group_id: str, *permissions: dict[str, Any]) -> dict[str, Any]:
    return {
        "GroupId": group_id,
        "GroupName": f"the-{group_id}",
        "OwnerId": "123456789012",
        "VpcId": "vpc-1",
        "IpPermissions": list(permissions),
        "IpPermissionsEgress": [permission("-1", **cidr("0.0.0.0/0"))],
    }


def instance(instance_id: str, name: str, address: str, *groups: str, **more: Any) -> dict[str, Any]:
    held = [{"GroupId": one, "GroupName": f"the-{one}"} for one in groups]
    interface = {
        "NetworkInterfaceId": f"eni-{instance_id}",
        "PrivateIpAddress": address,
        "Ipv6Addresses": [{"Ipv6Address": "2001:DB8::5"}],
        "PrivateIpAddresses": [
            {"Primary": True, "PrivateIpAddress": address, "Association": {"PublicIp": "203.0.113.9"}}
        ],
        "Groups": held,
    }
    return {
        "InstanceId": instance_id,
        "State": {"Code": 16, "Name": "running"},
        "PrivateIpAddress": address,
        "SecurityGroups": held,
        "NetworkInterfaces": [interface],
        "Tags": [{"Key": "Name", "Value": name}, {"Key": "stage", "Value": "live"}],
        **more,
    }


def interface(own_id: str, address: str, **more: Any) -> dict[str, Any]:
    held = [{"GroupId": "sg-1", "GroupName": "the-sg-1"}]
    return {"NetworkInterfaceId": own_id, "PrivateIpAddress": address, "Groups": held, **more}


def read(folder: Path, groups: list[dict[str, Any]], instances: list[dict[str, Any]], **words: Any) -> Expectations:
    (folder / "sg.json").write_text(json.dumps({"SecurityGroups": groups}))
    (folder / "i.json").write_text(json.dumps({"Reservations": [{"Instances": [one]} for one in instances]}))
    made = {"security_groups": str(folder / "sg.json"), "instances": str(folder / "i.json"), **words}
    return read_aws(AwsWords(**made), "cloud", FakeClock(7))


def claims(found: Expectations, at: int = 0) -> dict[str, tuple[str, ...]]:
    return {f"{one.ports}/{one.protocol.value}": one.sources for one in found.claims[at].openings}


def test_what_groups_let_in_is_claimed_of_the_hosts_that_have_them(tmp_path: Path):
    groups = [
        group(
            "sg-web",
            permission("tcp", 443, 443, **cidr("0.0.0.0/0", "::/0")),
            permission("tcp", 8000, 8100, **cidr("198.51.100.0/25", "198.51.100.128/25")),
            permission("icmp", -1, -1, **cidr("0.0.0.0/0")),
            permission("icmp", 8, 0, **cidr("0.0.0.0/0")),
            permission("58", **cidr("::/0")),
        ),
        group("sg-all", permission("-1", **cidr("198.51.100.7/32", "2001:db8:9::/48"))),
        group("sg-dns", permission("17", 53, 53, **cidr("0.0.0.0/1", "128.0.0.0/1")), permission("tcp", 0, 65535)),
    ]
    found = read(
        tmp_path,
        groups,
        [
            instance("i-1", "web1", "192.0.2.10", "sg-web"),
            instance("i-2", "db1", "192.0.2.20", "sg-all", "sg-dns"),
            instance("i-3", "gone", "192.0.2.30", "sg-all", State={"Name": "terminated"}),
        ],
    )
    assert (found.hosts, found.read_at, found.problems, found.claims_complete) == ((), 7, (), True)
    web, database = found.claims
    assert (web.name, web.addresses) == ("web1", ("192.0.2.10", "203.0.113.9", "2001:db8::5"))
    assert str(web.openings[0].origin) == f"{tmp_path}/sg.json:sg-web"
    assert claims(found) == {"443/tcp": ("world",), "8000-8100/tcp": ("cloud:198.51.100.0-24",)}
    assert database.name == "db1"
    assert claims(found, 1) == {
        "1-65535/tcp": ("cloud:198.51.100.7-32+1",),
        "1-65535/udp": ("cloud:198.51.100.7-32+1",),
        "53/udp": ("world",),
    }
    networks = {one.name: [str(prefix) for prefix in one.prefixes] for one in found.networks}
    assert networks["cloud:198.51.100.7-32+1"] == ["198.51.100.7/32", "2001:db8:9::/48"]


def test_a_group_as_source_stands_for_the_hosts_that_have_it(tmp_path: Path):
    pairs = {"UserIdGroupPairs": [{"GroupId": "sg-web", "UserId": "1"}, {"GroupId": "sg-other", "UserId": "2"}]}
    found = read(
        tmp_path,
        [
            group("sg-db", permission("tcp", 5432, 5432, **pairs, PrefixListIds=[{"PrefixListId": "pl-1"}])),
            group("sg-web"),
        ],
        [instance("i-1", "web1", "192.0.2.10", "sg-web"), instance("i-2", "db1", "192.0.2.20", "sg-db", "sg-lost")],
    )
    assert claims(found, 1) == {"5432/tcp": ("cloud:sg-web",)}
    assert "192.0.2.10/32" in {str(one) for one in found.networks[0].prefixes}
    assert {one.reason for one in found.problems} == {InventoryReason.UNKNOWN_NAME}
    said = " ".join(one.message for one in found.problems)
    assert [word in said for word in ("pl-1", "sg-other", "sg-lost")] == [True, True, True]
    assert not found.claims_complete


def test_interfaces_and_the_policy_file_may_say_who_has_which_group(tmp_path: Path):
    groups = [group("sg-1", permission("tcp", 22, 22, **cidr("0.0.0.0/0")))]
    tags = [{"Key": "Name", "Value": "lb"}]
    interfaces = [
        interface("eni-1", "192.0.2.5", Association={"PublicIp": "203.0.113.5"}),
        interface("eni-2", "192.0.2.6", Attachment={"InstanceId": "i-1"}),
        interface("eni-3", "192.0.2.7", TagSet=tags),
    ]
    (tmp_path / "eni.json").write_text(json.dumps({"NetworkInterfaces": interfaces}))
    found = read(
        tmp_path,
        groups,
        [instance("i-1", "web1", "192.0.2.10")],
        network_interfaces=str(tmp_path / "eni.json"),
        hosts={"db1": ["the-sg-1"], "web1": []},
    )
    made = {one.name: (one.addresses, len(one.openings)) for one in found.claims}
    assert made == {
        "web1": (("192.0.2.10", "203.0.113.9", "2001:db8::5", "192.0.2.6"), 1),
        "eni-1": (("192.0.2.5", "203.0.113.5"), 1),
        "lb": (("192.0.2.7",), 1),
        "db1": ((), 1),
    }


def test_of_two_instances_of_one_name_the_second_is_called_by_its_id(tmp_path: Path):
    instances = [instance("i-1", "web", "192.0.2.10"), instance("i-2", "web", "192.0.2.11"), instance("i-3", "", "")]
    found = read(tmp_path, [], instances)
    assert [one.name for one in found.claims] == ["web", "i-2", "i-3"]


def test_what_cannot_be_meant_is_left_out_and_said(tmp_path: Path):
    groups = [
        group(
            "sg-1", permission("tcp", 443, 70000, **cidr("0.0.0.0/0")), permission("tcp", 1, 1, **cidr("300.0.0.0/8"))
        )
    ]
    found = read(tmp_path, groups, [instance("i-1", "web1", "192.0.2.10", "sg-1")])
    assert claims(found) == {}
    assert [one.reason for one in found.problems] == [InventoryReason.WRONG_WORDS] * 2
    assert not found.claims_complete


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", InventoryReason.NOT_JSON),
        ('{"x":' * 100_000, InventoryReason.NOT_JSON),
        ("[]", InventoryReason.WRONG_SHAPE),
        ('{"Reservations": []}', InventoryReason.WRONG_SHAPE),
        ('{"SecurityGroups": [{"GroupName": "x"}]}', InventoryReason.WRONG_SHAPE),
        ('{"SecurityGroups": [{"GroupId": "x", "IpPermissions": [{"IpProtocol": 6}]}]}', InventoryReason.WRONG_SHAPE),
    ],
)
def test_what_the_aws_cli_did_not_print_is_refused(tmp_path: Path, text: str, reason: InventoryReason):
    file = tmp_path / "sg.json"
    file.write_text(text)
    with pytest.raises(VedetteError) as caught:
        read_aws(AwsWords(security_groups=str(file), hosts={"web1": ["x"]}), "cloud", FakeClock())
    assert getattr(caught.value, "reason", None) is reason
    assert str(caught.value).startswith(f"{file}: ")


def test_somebody_has_to_say_which_host_has_which_group():
    with pytest.raises(ValidationError, match="nothing says which host has which group"):
        AwsWords(security_groups="sg.json")


def test_a_file_that_ends_before_its_end_is_no_whole_claim(tmp_path: Path):
    assert read(tmp_path, [group("sg-1")], [instance("i-1", "web1", "192.0.2.10", "sg-1")]).claims_complete
    words = AwsWords(security_groups=f"{tmp_path}/sg.json", instances=f"{tmp_path}/i.json")
    for name in ("sg.json", "i.json"):
        said = {"SecurityGroups": [group("sg-1")], "Reservations": []}
        (tmp_path / "sg.json").write_text(json.dumps(said))
        (tmp_path / "i.json").write_text(json.dumps(said))
        (tmp_path / name).write_text(json.dumps({**said, "NextToken": "abc"}))
        found = read_aws(words, "cloud", FakeClock())
        assert [(one.reason, name in one.message) for one in found.problems] == [(InventoryReason.CUT, True)]
        assert not found.claims_complete
