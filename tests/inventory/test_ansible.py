from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vedette.inventory.ansible import AnsibleWords, read_ansible
from vedette.inventory.ansible_files import host_names
from vedette.model.errors import ConfigError, InventoryError, Location, VedetteError
from vedette.model.ports import Expectations, HostExpectation, Protocol
from vedette.model.reasons import InventoryReason
from vedette.testing.clock import FakeClock

INI = """\
# the edge
gw1 ansible_host=192.0.2.1 vedette_gateway=true ansible_user=root
[web]
web[01:03].example.org
web01.example.org ansible_host=192.0.2.11   # said again, with more

[web:vars]
vedette_ports={"443/tcp": {"from": "world", "must_answer": true}, '80/tcp': world}
greeting=hello = world

[db]
db-[a:b]:2222
[2001:db8:1::5]:22 vedette_ports='{"5432/tcp": ["office", "gateways"]}'
[eu:children]
web
db
"""

YAML = """\
all:
  vars:
    vedette_ports: {22/tcp: gateways}
  hosts:
    192.0.2.9:
  children:
    web:
      hosts:
        web[1:2]: {ansible_host: shop.example.org}
      vars:
        vedette_ports:
          443/tcp: {from: world, owner: shop, until: 2026-12-31}
    front:
      children:
        web:
    db:
      hosts: db1
"""


def read(folder: Path, text: str, name: str = "hosts", **words: object) -> Expectations:
    (folder / name).write_text(dedent(text))
    return read_ansible(AnsibleWords(inventory=str(folder / name), **words), "site", FakeClock(7))  # type: ignore[arg-type]


def hosts(found: Expectations) -> dict[str, HostExpectation]:
    return {one.name: one for one in found.hosts}


def ports(host: HostExpectation) -> dict[str, tuple[str, ...]]:
    return {f"{one.ports}/{one.protocol.value}": one.sources for one in host.openings}


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))


def test_an_ini_inventory_gives_hosts_addresses_groups_and_ports(tmp_path: Path):
    found = read(tmp_path, INI)
    assert (found.inventory, found.read_at, found.problems, found.claims) == ("site", 7, (), ())
    made = hosts(found)
    assert list(made) == [
        "gw1",
        "web01.example.org",
        "web02.example.org",
        "web03.example.org",
        "db-a",
        "db-b",
        "2001:db8:1::5",
    ]
    web = made["web01.example.org"]
    assert (web.addresses, web.names, web.groups) == (("192.0.2.11",), (), ("eu", "web"))
    assert ports(web) == {"443/tcp": ("world",), "80/tcp": ("world",)}
    (https,) = web.covering(443, Protocol.TCP)
    assert (https.must_answer, https.origin) == (True, Location(str(tmp_path / "hosts"), 8))
    assert made["web02.example.org"].names == ("web02.example.org",)
    assert made["gw1"].gateway
    assert not web.gateway
    assert ports(made["2001:db8:1::5"]) == {"5432/tcp": ("office", "gateways")}
    assert made["2001:db8:1::5"].addresses == ("2001:db8:1::5",)


def test_a_yaml_inventory_gives_the_same_with_line_and_column(tmp_path: Path):
    made = hosts(read(tmp_path, YAML, "hosts.yml"))
    assert list(made) == ["192.0.2.9", "web1", "web2", "db1"]
    web = made["web2"]
    assert (web.names, web.groups) == (("shop.example.org",), ("front", "web"))
    assert ports(web) == {"443/tcp": ("world",)}
    (https,) = web.openings
    assert (https.owner, str(https.origin)) == ("shop", f"{tmp_path}/hosts.yml:12:11")
    assert https.until
    assert ports(made["db1"]) == ports(made["192.0.2.9"]) == {"22/tcp": ("gateways",)}
    assert made["192.0.2.9"].addresses == ("192.0.2.9",)


def test_variables_beside_the_inventory_override_as_they_do_in_ansible(tmp_path: Path):
    write(tmp_path, "group_vars/all.yml", "vedette_ports: {1/tcp: world}\n")
    write(tmp_path, "group_vars/web/ports.yml", "vedette_ports: {2/tcp: world}\n")
    write(tmp_path, "group_vars/web/other.yml", "other: '{{ no matter }}'\n")
    write(tmp_path, "group_vars/absent.yml", "{ broken")
    write(tmp_path, "host_vars/web3", "---\nvedette_ports: {5/tcp: world}\n")
    inventory = """\
        [web]
        web1
        web2 vedette_ports="{4/tcp: world}"
        web3 vedette_ports="{4/tcp: world}"
        [web:vars]
        vedette_ports={3/tcp: world}
        [inner]
        web4
        [web:children]
        inner
        [inner:vars]
        vedette_ports={6/tcp: world}
        [alone]
        host1
        """
    made = hosts(read(tmp_path, inventory))
    assert {name: list(ports(one)) for name, one in made.items()} == {
        "web1": ["2/tcp"],
        "web2": ["4/tcp"],
        "web3": ["5/tcp"],
        "web4": ["2/tcp"],
        "host1": ["1/tcp"],
    }


def test_the_group_further_down_or_of_higher_priority_counts(tmp_path: Path):
    inventory = """\
        all:
          children:
            zone: {children: {web: {}}, vars: {vedette_ports: {1/tcp: world}}}
            web: {hosts: {web1: }, vars: {vedette_ports: {2/tcp: world}}}
            app: {hosts: {app1: }, vars: {vedette_ports: {3/tcp: world}, ansible_group_priority: 9}}
            bar: {hosts: {app1: }, vars: {vedette_ports: {4/tcp: world}}}
            tail: {hosts: {app2: }, vars: {vedette_ports: {5/tcp: world}}}
            body: {hosts: {app2: }, vars: {vedette_ports: {6/tcp: world}}}
        """
    made = hosts(read(tmp_path, inventory, "hosts.yml"))
    assert {name: list(ports(one)) for name, one in made.items()} == {
        "web1": ["2/tcp"],
        "app1": ["3/tcp"],
        "app2": ["5/tcp"],
    }


def test_templates_and_secrets_are_left_out_and_said(tmp_path: Path):
    write(tmp_path, "group_vars/db.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    inventory = """\
        web:
          hosts:
            web1:
              ansible_host: "{{ inventory_hostname }}.example.org"
              vedette_ports:
                80/tcp: world
                443/tcp: {from: "{{ who }}"}
                8443/tcp: !unsafe office
            web2:
              ansible_password: !vault |
                $ANSIBLE_VAULT;1.1;AES256
                6162
              vedette_ports: !vault |
                $ANSIBLE_VAULT;1.1;AES256
                6162
        db: {hosts: {db1: {vedette_ports: "{{ ports }}"}}}
        """
    found = read(tmp_path, inventory, "hosts.yml")
    made = hosts(found)
    assert ports(made["web1"]) == {"80/tcp": ("world",), "8443/tcp": ("office",)}
    assert made["web1"].names == ("web1",)
    assert ports(made["web2"]) == ports(made["db1"]) == {}
    said = {(one.reason, str(one.location).removeprefix(f"{tmp_path}/")) for one in found.problems}
    assert said == {
        (InventoryReason.TEMPLATED, "hosts.yml:4:7"),
        (InventoryReason.TEMPLATED, "hosts.yml:7:19"),
        (InventoryReason.ENCRYPTED, "hosts.yml:13:7"),
        (InventoryReason.TEMPLATED, "hosts.yml:16:20"),
        (InventoryReason.ENCRYPTED, "group_vars/db.yml"),
    }


def test_a_folder_is_read_whole_but_for_what_is_no_inventory(tmp_path: Path):
    write(tmp_path, "site/a.yml", "web: {hosts: {web1: }}\n")
    write(tmp_path, "site/b", "[db]\ndb1\n")
    write(tmp_path, "site/more/c", "[db]\ndb2\n")
    for name in ("b~", "notes.md", "ansible.cfg", ".hidden"):
        write(tmp_path, f"site/{name}", "{{ no inventory")
    write(tmp_path, "site/group_vars/db.yml", "vedette_ports: {5432/tcp: office}\n")
    made = hosts(read_ansible(AnsibleWords(inventory=str(tmp_path / "site")), "site", FakeClock()))
    assert list(made) == ["web1", "db1", "db2"]
    assert ports(made["db2"]) == {"5432/tcp": ("office",)}


def test_variables_may_be_called_otherwise(tmp_path: Path):
    found = read(
        tmp_path, "web1 open='{80/tcp: world}' at=192.0.2.7 bastion=yes\n",
        variable="open", address_variable="at", gateway_variable="bastion",
    )  # fmt: skip
    (web,) = found.hosts
    assert (ports(web), web.addresses, web.gateway) == ({"80/tcp": ("world",)}, ("192.0.2.7",), True)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("hosts", "[web\nweb1 x", "hosts:2: x is no `name=value`"),
        ("hosts", "[web:hosts2]", "[web:hosts2] is no section"),
        ("hosts", "[web:vars]\nno", "hosts:2: no `name=value`"),
        ("hosts", "[web:vars]\na=b", "there is no group web"),
        ("hosts", "[a:children]\nb", "hosts:2: there is no group b"),
        ("hosts", "[a:children]\nb\n[b:children]\na", "lies within itself"),
        ("hosts", "web1 a='b", "hosts:1: cannot be taken apart"),
        ("hosts", "web[5:1]", "[5:1] is no range"),
        ("hosts", "web[01:100]", "as many digits"),
        ("hosts", "web[1:9999999]", "more than 10000 hosts"),
        ("hosts", "web[1:999].d[1:999]", "more than 10000 hosts"),
        ("hosts", "we!b1", "is neither address nor host name"),
        ("hosts", "web1 ansible_host=a!b", "ansible_host is neither address nor host name"),
        ("hosts", "web1 ansible_host=7", "ansible_host is text"),
        ("hosts", "web1 vedette_gateway=perhaps", "vedette_gateway is true or false"),
        ("hosts", "web1 vedette_ports=22", "hosts:1: vedette_ports is not a mapping"),
        ("hosts", "web1 vedette_ports='{22: world'", "hosts:1: vedette_ports: no valid YAML"),
        ("hosts", "web1 vedette_ports='{22: world}'", "hosts:1: vedette_ports.22: '22' is not a port (hint: write"),
        ("hosts", "#!/bin/sh\necho", "is a program, and programs are not run"),
        ("hosts", "$ANSIBLE_VAULT;1.1;AES256", "is encrypted"),
        ("hosts.yml", "plugin: amazon.aws.aws_ec2", "is for a plug-in"),
        ("hosts.yml", "web: [a]", "hosts.yml:1:1: web is not a mapping"),
        ("hosts.yml", "web: {host: {a: }}", "hosts.yml:1:7: host is not a key of a group"),
        ("hosts.yml", "web: {hosts: [a]}", "hosts is not a mapping"),
        ("hosts.yml", "web: {children: {b: 7}}", "b is not a group"),
        ("hosts.yml", "web: {children: {b: {children: {web: }}}}", "lies within itself"),
        (
            "hosts.yml",
            "web:\n  hosts:\n    a:\n      vedette_ports:\n        22/tcp: {from: world, ovner: me}",
            "hosts.yml:5:31: vedette_ports.22/tcp.ovner: is not a key that stands here",
        ),
        ("hosts.yml", "web: {hosts: {a: {vedette_ports: {22/tcp: [nobody, x]}}}}", "nobody, and others too"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, name: str, text: str, said: str):
    with pytest.raises(VedetteError) as caught:
        read(tmp_path, text, name)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/{name}")


def test_what_cannot_be_read_or_anybody_may_write_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_ansible(AnsibleWords(inventory=str(tmp_path / "none")), "site", FakeClock())
    (tmp_path / "hosts").write_bytes(b"web1\n\xff")
    with pytest.raises(ConfigError, match=r"hosts:2: is not UTF-8"):
        read_ansible(AnsibleWords(inventory=str(tmp_path / "hosts")), "site", FakeClock())
    write(tmp_path, "group_vars/all", "a: b\n")
    (tmp_path / "group_vars/all").chmod(0o666)
    with pytest.raises(ConfigError, match="everybody may write it"):
        read(tmp_path, "web1\n")


def test_names_that_lead_elsewhere_are_no_files_of_variables(tmp_path: Path):
    write(tmp_path, "secret.yml", "vedette_ports: {22/tcp: world}\n")
    write(tmp_path, "inventory/group_vars/x.yml", "a: b\n")
    with pytest.raises(InventoryError):
        read(tmp_path / "inventory", "web[1:3]\n", most_hosts=2)
    made = read(tmp_path / "inventory", "'../secret': {hosts: {web1: }}\n", "hosts.yml")
    assert made.hosts[0].openings == ()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web1", ["web1"]),
        ("web1:22", ["web1"]),
        ("web[1:3]:22", ["web1", "web2", "web3"]),
        ("web[08:11]", ["web08", "web09", "web10", "web11"]),
        ("web[:2]", ["web0", "web1", "web2"]),
        ("web[0:10:5]x", ["web0x", "web5x", "web10x"]),
        ("[a:c]-[1:2]", ["a-1", "a-2", "b-1", "b-2", "c-1", "c-2"]),
        ("2001:db8::1", ["2001:db8::1"]),
        ("[2001:db8::1]:22", ["2001:db8::1"]),
    ],
)
def test_ranges_are_written_out(pattern: str, names: list[str]):
    assert list(host_names(pattern, Location("hosts", 1), 100)) == names


PIECES = st.sampled_from(
    [
        *("web1", "web", "[web]", "[web:vars]", "[web:children]", "[1:3]", "[01:1]", "::1", "[::1]:22", "*a", "&a"),
        *(
            "=",
            ":",
            "'",
            '"',
            "\n",
            "\n  ",
            " ",
            "\t",
            "\r",
            "#",
            "\x00",
            "\x85",
            "é",
            "-",
            "{",
            "[",
            "true",
            "!vault |",
        ),
        *("vedette_ports=", "{22/tcp: world}", "{{ x }}", "ansible_host=", "vedette_gateway="),
        *("all:", "hosts:", "children:", "vars:"),
    ]
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(PIECES, max_size=12).map("".join), st.sampled_from(["hosts", "hosts.yml"]))
def test_whatever_stands_in_a_file_is_read_or_refused_with_its_place(tmp_path: Path, text: str, name: str):
    (tmp_path / name).write_text(text, newline="")
    said = ""
    try:
        found = read_ansible(AnsibleWords(inventory=str(tmp_path / name)), "site", FakeClock())
    except VedetteError as error:
        said = str(error)
    assert said.startswith(f"{tmp_path}/{name}") or all(len(one.addresses) + len(one.names) == 1 for one in found.hosts)


def test_groups_may_lie_deep(tmp_path: Path):
    chain = "\n".join(f"[g{at}:children]\ng{at + 1}" for at in range(3_000))
    (web,) = read(tmp_path, f"{chain}\n[g3000]\nweb1\n").hosts
    assert len(web.groups) == 3_001


@pytest.mark.parametrize("open_to_all", ["site", "site/group_vars", "site/group_vars/all", "site/host_vars"])
def test_a_folder_into_which_everybody_may_put_variables_is_refused(tmp_path: Path, open_to_all: str):
    for folder in ("site/group_vars/all", "site/host_vars"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / "site", "hosts", "web1 ansible_host=192.0.2.1\n")
    for inventory in (tmp_path / "site", tmp_path / "site" / "hosts"):
        words = AnsibleWords(inventory=str(inventory))
        assert hosts(read_ansible(words, "site", FakeClock())).keys() == {"web1"}
        (tmp_path / open_to_all).chmod(0o1777)
        with pytest.raises(ConfigError, match="everybody may put files there"):
            read_ansible(words, "site", FakeClock())
        (tmp_path / open_to_all).chmod(0o755)


def test_a_folder_of_everybody_without_variables_in_it_may_hold_an_inventory(tmp_path: Path):
    tmp_path.chmod(0o1777)
    assert hosts(read(tmp_path, "web1 ansible_host=192.0.2.1\n")).keys() == {"web1"}
