"""`vedette up` while a real dpkg upgrades: an upgrade alone pages nobody; one with a binary replaced pages once.
Counterpart: sources/integrity, what vouches, and rules/packs/integrity.yml; test_integrity_packages.py says why."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.conftest import StartVedette
from tests.scenarios.parts.debian import Debian
from tests.scenarios.parts.processes import wait_until
from tests.scenarios.parts.vedette import Vedette

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

FILES = {f"usr/bin/tool{number}": f"tool {number} 1.0\n".encode() for number in range(10)}
OLD = {**FILES, "usr/lib/libtool.so.1": b"library 1\n", "etc/tool.conf": b"colour = red\n"}
CONF = ("/etc/tool.conf",)


def version(number: str) -> dict[str, bytes]:
    files = {name: content.replace(b"1.0", number.encode()) for name, content in FILES.items()}
    return {**files, f"usr/lib/libtool.so.{number}": b"library\n", "etc/tool.conf": f"version = {number}\n".encode()}


@pytest.fixture
def debian(scratch: Path) -> Iterator[Debian]:
    scratch.chmod(0o755)
    made = Debian(scratch / "debian")
    made.install(made.build("tool", "1.0", OLD, conffiles=CONF))
    yield made
    made.close()


def settings(debian: Debian) -> dict[str, Any]:
    trees = [str(debian.root / name) for name in ("usr", "etc")]
    vouching = {
        "root": str(debian.root),
        "dpkg_log": str(debian.log),
        "lists": str(debian.lists),
        "pools": [str(debian.pool)],
        "keyrings": [str(debian.keyring)],
    }
    return {
        "sources": {
            "file": [{"paths": [str(debian.folder / "no.log")]}],
            "integrity": {"trees": trees, "leave_out": [], "vouching": vouching},
        }
    }


def started(debian: Debian, start_vedette: StartVedette) -> Vedette:
    program = start_vedette(settings(debian))
    wait_until(
        f"a baseline in:\n{program.log}", lambda: any((program.data / "integrity").glob("*baseline*")), 60
    )  # fmt: skip
    return program


def vouched(program: Vedette) -> int:
    return int(program.query("select count(*) from findings where rule_id = 'integrity-vouched'")[0][0])


def test_an_upgrade_pages_nobody_and_the_same_with_one_binary_replaced_pages_once(
    debian: Debian, start_vedette: StartVedette
) -> None:
    program = started(debian, start_vedette)
    debian.install(debian.build("tool", "1.1", version("1.1"), conffiles=CONF))
    # Ten programs, a library that came, one that went, and the configuration.
    wait_until(f"the upgrade is seen in:\n{program.log}", lambda: vouched(program) >= 13, 60)
    assert program.alerts() == []

    debian.install(debian.build("tool", "1.2", version("1.2"), conffiles=CONF))
    evil, path = b"tool 3 1.z\n", debian.root / "usr/bin/tool3"
    # Of the same length, right behind dpkg, by a program that is named.
    subprocess.run(["dd", f"of={path}", "status=none", "conv=notrunc"], input=evil, check=True)
    assert path.read_bytes() == evil
    alert = program.wait_for_alert("integrity-contradicted")
    assert alert["level"] == "high"
    wait_until(f"all of it is seen in:\n{program.log}", lambda: vouched(program) >= 13 + 12, 60)
    assert [one["rule.id"] for one in program.alerts()] == ["integrity-contradicted"]
    found = program.records("search", f'file.path:"{path}" AND vedette.integrity.verdict:contradicted')
    expected = hashlib.sha256(version("1.2")["usr/bin/tool3"]).hexdigest()
    assert [
        (one["package.name"], one["package.version"], one["vedette.integrity.expected_sha256"]) for one in found
    ] == [("tool", "1.2", expected)]
    # Whoever was first at the file of this look is named: dpkg itself, or who came behind it.
    assert found[0]["process.executable"].rpartition("/")[2] in ("dd", "dpkg", "dpkg-deb")
    for word in (str(path), "tool 1.2", found[0]["process.executable"]):
        assert word in alert["sample"]
