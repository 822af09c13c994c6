"""Each check on a file tree, /proc or list that the test wrote: what it finds, and what it must not.
Counterpart: sources/rootkit; tests/scenarios/test_rootkit.py has real hidden processes and interfaces."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vedette.model.levels import Level
from vedette.sources.rootkit.files import Known, Walk, authentication, authorised_keys, keys_in, walk_files
from vedette.sources.rootkit.kernel import modules
from vedette.sources.rootkit.processes import hidden_processes, preloaded_libraries
from vedette.sources.rootkit.rootcheck import known_paths, known_strings, read_signatures
from vedette.sources.rootkit.sockets import hidden_ports, promiscuous_interfaces
from vedette.sources.rootkit.traces import Blind, Check, Look, TraceKind
from vedette.system.bound_sockets import BoundSocket
from vedette.system.interfaces import Interface


def put(root: Path, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(mode)
    return file


def found(look: Look) -> dict[str, tuple[TraceKind, Level]]:
    return {one.subject: (one.kind, one.level) for one in look.traces}


# ------------------------------------------------------------------------------------------------ processes


def process(root: Path, pid: int, *, tgid: int | None = None, listed: bool = True) -> None:
    """A process, or a thread of `tgid`; one that is not listed has no folder."""
    leader = tgid or pid
    if listed:
        put(root, f"proc/{pid}/stat", f"{pid} (it) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0")
        put(root, f"proc/{pid}/status", f"Name:\tit\nTgid:\t{leader}\nUid:\t0\t0\t0\t0\n")
    (root / "proc" / str(leader) / "task" / str(pid)).mkdir(parents=True, exist_ok=True)


def proc(root: Path, mounts: str = "") -> Path:
    put(root, "proc/sys/kernel/pid_max", "5000")
    put(root, "proc/self/mountinfo", mounts)
    return root / "proc"


def alive(*ids: int) -> Callable[[range], list[int]]:
    return lambda asked: [one for one in ids if one in asked]


def test_a_process_that_is_not_listed_is_hidden_and_a_thread_is_not(tmp_path: Path) -> None:
    folder = proc(tmp_path)
    process(tmp_path, 10)
    process(tmp_path, 4999, listed=False)
    look = Look()
    hidden_processes(look, proc=folder, alive=alive(10, 4711), sleep=lambda _: None)
    assert found(look) == {"pid 4711": (TraceKind.HIDDEN_PROCESS, Level.CRITICAL)}


def test_threads_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = proc(tmp_path)
    process(tmp_path, 10)
    process(tmp_path, 11, tgid=10)
    # A thread has a folder, and is not in the listing.
    monkeypatch.setattr("vedette.sources.rootkit.processes.process_ids", lambda root: [10])
    look = Look()
    hidden_processes(look, proc=folder, alive=alive(10, 11), sleep=lambda _: None)
    assert look.traces == []


def test_a_folder_that_is_not_the_process_s_own_hides_it(tmp_path: Path) -> None:
    folder = proc(tmp_path)
    process(tmp_path, 10)
    put(tmp_path, "proc/20/stat", "10 (it) S")
    look = Look()
    hidden_processes(look, proc=folder, alive=alive(10, 20), sleep=lambda _: None)
    assert list(found(look)) == ["pid 20"]


def test_what_ends_while_it_is_looked_at_is_not_hidden(tmp_path: Path) -> None:
    folder = proc(tmp_path)
    living = {4711}

    def ended(_: float) -> None:
        living.clear()

    look = Look()
    hidden_processes(look, proc=folder, alive=lambda asked: [one for one in living if one in asked], sleep=ended)
    assert look.traces == []


def test_where_proc_hides_all_others_nothing_is_concluded(tmp_path: Path) -> None:
    mounts = f"22 1 0:20 / {tmp_path}/proc rw - proc proc rw,hidepid=2\n"
    folder = proc(tmp_path, mounts)
    look = Look()
    hidden_processes(look, proc=folder, alive=alive(4711), sleep=lambda _: None)
    assert look.traces == []
    assert look.blind == {(Check.PROCESSES, Blind.HIDEPID): 1}
    process(tmp_path, 1)  # whoever is shown the first process is shown all
    allowed = Look()
    hidden_processes(allowed, proc=folder, alive=alive(1, 4711), sleep=lambda _: None)
    assert list(found(allowed)) == ["pid 4711"]


def test_preloaded_libraries_of_all_programs_and_of_one(tmp_path: Path) -> None:
    process(tmp_path, 10)
    put(tmp_path, "proc/10/environ", b"HOME=/\0LD_PRELOAD=/tmp/a.so:/usr/lib/b.so\0")
    process(tmp_path, 11)
    put(tmp_path, "proc/11/environ", b"XLD_PRELOAD=/tmp/no.so\0")
    put(tmp_path, "etc/ld.so.preload", "# none\n/lib/evil.so /usr/lib/b.so # b\n")
    put(tmp_path, "var/lib/dpkg/info/libb.list", "/usr/lib/b.so\n")
    look = Look()
    preloaded_libraries(look, root=tmp_path)
    assert found(look) == {
        "/tmp/a.so": (TraceKind.PRELOADED_LIBRARY, Level.HIGH),
        "/lib/evil.so": (TraceKind.PRELOADED_LIBRARY, Level.CRITICAL),
        "/usr/lib/b.so": (TraceKind.PRELOADED_LIBRARY, Level.LOW),
    }
    put(tmp_path, "etc/ld.so.preload", "\n# nothing\n")
    put(tmp_path, "proc/10/environ", b"HOME=/\0")
    again = Look()
    preloaded_libraries(again, root=tmp_path)
    assert (again.traces, again.blind) == ([], {})


# ------------------------------------------------------------------------------------------------ kernel and sockets


def module(root: Path, name: str, *, loaded: bool = True, listed: bool = True, taint: str = "") -> None:
    if loaded:
        put(root, f"sys/module/{name}/initstate", "live\n")
    if listed:
        with (root / "proc/modules").open("a") as stream:
            stream.write(f"{name} 16384 0 - Live 0x0000000000000000{taint}\n")


def test_modules_that_one_list_shows_alone_or_that_nobody_signed(tmp_path: Path) -> None:
    put(tmp_path, "proc/modules")
    put(tmp_path, "sys/module/builtin/parameters/x")
    put(tmp_path, "proc/sys/kernel/tainted", "12288")  # out of tree, unsigned
    module(tmp_path, "ext4")
    module(tmp_path, "evil", listed=False)
    module(tmp_path, "ghost", loaded=False)
    module(tmp_path, "zfs", taint=" (POE)")
    module(tmp_path, "wireguard_dkms", taint=" (O)")
    look = Look()
    modules(look, root=tmp_path, sleep=lambda _: None)
    assert found(look) == {
        "evil": (TraceKind.HIDDEN_MODULE, Level.CRITICAL),
        "ghost": (TraceKind.HIDDEN_MODULE, Level.CRITICAL),
        "zfs": (TraceKind.UNSIGNED_MODULE, Level.HIGH),
        "wireguard_dkms": (TraceKind.UNSIGNED_MODULE, Level.LOW),
    }
    (tmp_path / "proc/sys/kernel/tainted").write_text("12290")  # one was forced, and none says so
    again = Look()
    modules(again, root=tmp_path, sleep=lambda _: None)
    assert found(again)["loaded by force"] == (TraceKind.TAINTED_KERNEL, Level.MEDIUM)


def test_a_kernel_without_modules_has_none_to_hide(tmp_path: Path) -> None:
    put(tmp_path, "proc/sys/kernel/tainted", "0")
    (tmp_path / "sys/module/builtin").mkdir(parents=True)
    look = Look()
    modules(look, root=tmp_path, sleep=lambda _: None)
    assert (look.traces, look.blind) == ([], {})
    put(tmp_path, "sys/module/loaded/initstate", "live")
    modules(look, root=tmp_path, sleep=lambda _: None)
    assert look.blind == {(Check.MODULES, Blind.UNREADABLE): 1}


TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(port: int, state: str = "0A") -> str:
    return (
        f"   0: 00000000:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
    )


def net(root: Path, *rows: str) -> Path:
    for name, text in (("tcp", TCP + "".join(rows)), ("udp", TCP)):
        put(root, f"net/{name}", text)
    return root / "net"


def listening(*ports: int) -> Callable[[], list[BoundSocket]]:
    return lambda: [BoundSocket("tcp", "0.0.0.0", port, 1, 0) for port in ports]


def test_a_port_in_one_list_alone_or_taken_and_in_none_is_hidden(tmp_path: Path) -> None:
    where = net(tmp_path, row(22), row(80), row(40000, "01"))
    taken = {("tcp", 22), ("tcp", 80), ("tcp", 31337), ("tcp", 40000), ("udp", 53), ("tcp", 7)}
    look = Look()
    hidden_ports(
        look,
        net=where,
        asked=listening(22, 81),
        taken=lambda transport, port: (transport, port) in taken,
        # Nothing answers at 7: it is bound, and nobody listens.
        answers=lambda port: port == 31337,
        sleep=lambda _: None,
    )
    assert set(found(look)) == {"53/udp", "80/tcp", "81/tcp", "31337/tcp"}
    assert {one.level for one in look.traces} == {Level.CRITICAL}


def test_a_port_that_opens_while_it_is_looked_is_not_hidden(tmp_path: Path) -> None:
    where, ports = net(tmp_path, row(22)), [22]

    def opened(_: float) -> None:
        ports.append(8080)
        net(tmp_path, row(22), row(8080))

    look = Look()
    hidden_ports(
        look,
        net=where,
        asked=lambda: listening(*ports)(),
        taken=lambda transport, port: port in (22, 8080) and transport == "tcp",
        answers=lambda port: True,
        sleep=opened,
    )
    assert look.traces == []
    assert 8080 in ports


def test_ports_that_may_not_be_tried_are_counted(tmp_path: Path) -> None:
    look = Look()
    hidden_ports(
        look, net=net(tmp_path), asked=listening(), ports=range(1, 11), sleep=lambda _: None,
        taken=lambda transport, port: None if port < 5 else False,
    )  # fmt: skip
    assert look.traces == []
    assert look.blind == {(Check.PORTS, Blind.NOT_PERMITTED): 8}


def test_interfaces_that_take_everything(tmp_path: Path) -> None:
    look = Look()
    asked = [Interface("eth0", 1), Interface("eth1", 0), Interface("veth7", 1, master=3, kind="veth")]
    promiscuous_interfaces(look, asked=lambda: asked)
    assert found(look) == {
        "eth0": (TraceKind.PROMISCUOUS_INTERFACE, Level.MEDIUM),
        "veth7": (TraceKind.PROMISCUOUS_INTERFACE, Level.INFORMATIONAL),
    }


# ------------------------------------------------------------------------------------------------ files


def walked(root: Path, known: Known) -> dict[str, tuple[TraceKind, Level]]:
    look = Look()
    walk_files(look, known, Walk(root))
    known.learned = True
    return found(look)


def test_set_uid_files_that_are_new_or_misplaced(tmp_path: Path) -> None:
    known = Known()
    put(tmp_path, "usr/bin/su", mode=0o4755)
    put(tmp_path, "tmp/sh", mode=0o4755)
    put(tmp_path, "usr/bin/plain", mode=0o755)
    put(tmp_path, "usr/bin/locked", mode=0o2644)  # set-gid without a right to run: mandatory locks
    assert walked(tmp_path, known) == {"/tmp/sh": (TraceKind.SET_ID_FILE, Level.HIGH)}
    (tmp_path / "tmp/sh").unlink()
    put(tmp_path, "usr/bin/new", mode=0o2755)
    put(tmp_path, "usr/bin/packaged", mode=0o4755)
    put(tmp_path, "var/lib/dpkg/info/p.list", "/usr/bin/packaged\n")
    assert walked(tmp_path, known) == {
        "/usr/bin/new": (TraceKind.SET_ID_FILE, Level.HIGH),
        "/usr/bin/packaged": (TraceKind.SET_ID_FILE, Level.LOW),
    }
    assert walked(tmp_path, known) == {}


def test_what_anybody_may_write(tmp_path: Path) -> None:
    put(tmp_path, "etc/open", mode=0o666)
    put(tmp_path, "etc/shut", mode=0o664)
    (tmp_path / "usr/lib/sticky").mkdir(parents=True)
    (tmp_path / "usr/lib/sticky").chmod(0o1777)
    (tmp_path / "usr/lib/loose").mkdir()
    (tmp_path / "usr/lib/loose").chmod(0o777)
    (tmp_path / "etc/link").symlink_to("shut")
    put(tmp_path, "tmp/anybody", mode=0o666)
    assert walked(tmp_path, Known()) == {
        "/etc/open": (TraceKind.WORLD_WRITABLE, Level.MEDIUM),
        "/usr/lib/loose": (TraceKind.WORLD_WRITABLE, Level.MEDIUM),
    }


def test_a_walk_that_would_never_end_is_cut_and_said(tmp_path: Path) -> None:
    for number in range(20):
        put(tmp_path, f"etc/{number}/file")
    look = Look()
    walk_files(look, Known(), Walk(tmp_path, most=10))
    assert look.blind[Check.FILES, Blind.TOO_MUCH] == 1


BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + bytes(36)).decode()
OTHER = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"\1" * 36).decode()


def test_new_keys_of_users(tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
    put(tmp_path, "root/.ssh/authorized_keys", f"# {OTHER}\nssh-ed25519 {BLOB} me@home\n")
    known, look = Known(), Look()
    authorised_keys(look, known, tmp_path)
    assert look.traces == []
    known.learned = True
    put(
        tmp_path,
        "root/.ssh/authorized_keys",
        f'ssh-ed25519 {BLOB} me@home\ncommand="x y" ssh-ed25519 {OTHER} \x1b[31m\n',
    )
    put(tmp_path, "home/alice/.ssh/authorized_keys2", f"ssh-ed25519 {BLOB}\nnot a key\n")
    authorised_keys(look, known, tmp_path)
    levels = {(one.fields["user.name"], one.level) for one in look.traces}
    assert levels == {("root", Level.HIGH), ("alice", Level.MEDIUM)}
    assert all("\x1b" not in one.detail for one in look.traces)
    again = Look()
    authorised_keys(again, known, tmp_path)
    assert again.traces == []


def test_of_any_number_of_keys_some_are_told_and_the_rest_is_said(tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd", "alice:x:1000:1000::/home/alice:/bin/sh\nroot:x:0:0::/root:/bin/sh\n")
    many = [base64.b64encode(b"%04d" % number).decode() for number in range(1_500)]
    put(tmp_path, "home/alice/.ssh/authorized_keys", "".join(f"ssh-ed25519 {one}\n" for one in many))
    put(tmp_path, "root/.ssh/authorized_keys", f"ssh-ed25519 {BLOB}\n")
    known, look = Known(learned=True), Look()
    authorised_keys(look, known, tmp_path)
    users = [one.fields["user.name"] for one in look.traces]
    assert (users.count("alice"), users.count("root")) == (100, 1)
    assert look.blind == {(Check.KEYS, Blind.TOO_MUCH): 1_400}
    again = Look()
    authorised_keys(again, known, tmp_path)
    assert len(again.traces) == 100, "what was not told is not learned"


def test_any_number_of_set_uid_files_hides_none_where_only_root_writes(tmp_path: Path) -> None:
    for number in range(1_005):
        put(tmp_path, f"home/alice/{number}", mode=0o4755)
    put(tmp_path, "usr/bin/door", mode=0o4755)
    known, look = Known(learned=True), Look()
    walk_files(look, known, Walk(tmp_path, ("/home", "/usr")))
    assert len(look.traces) == 1_000
    assert "/usr/bin/door" in {one.subject for one in look.traces}
    assert look.blind[Check.FILES, Blind.TOO_MUCH] == 6
    assert len(known.set_id) == 1_000


def test_any_number_of_preloaded_names_is_cut_and_said(tmp_path: Path) -> None:
    names = ":".join(f"/tmp/{number}.so" for number in range(50))
    put(tmp_path, "proc/7/environ", f"LD_PRELOAD={names}\0")
    put(tmp_path, "proc/8/environ", f"LD_PRELOAD=/tmp/{'x' * 9_000}.so\0")
    look = Look()
    preloaded_libraries(look, root=tmp_path)
    assert len(look.traces) == 21
    assert all(len(one.subject) <= 4096 for one in look.traces)
    assert look.blind[Check.PRELOADING, Blind.TOO_MUCH] == 30


def test_a_user_s_pipe_in_place_of_keys_holds_nobody_up(tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd", "alice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n")
    keys = put(tmp_path, "home/alice/.ssh/authorized_keys")
    keys.unlink()
    os.mkfifo(keys)
    put(tmp_path, "home/bob/.ssh/authorized_keys", f"ssh-ed25519 {BLOB}\n")
    known, look = Known(learned=True), Look()
    authorised_keys(look, known, tmp_path)
    assert [one.fields["user.name"] for one in look.traces] == ["bob"]
    assert look.blind == {(Check.KEYS, Blind.UNREADABLE): 1}


def test_fingerprints_are_those_of_ssh_keygen() -> None:
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(BLOB)).digest()).decode().rstrip("=")
    assert list(keys_in(f"ssh-ed25519 {BLOB} a b".encode())) == [("ssh-ed25519", f"SHA256:{digest}", "a b")]


def test_how_people_are_let_in(tmp_path: Path) -> None:
    put(tmp_path, "etc/pam.d/sshd", "auth required pam_unix.so\naccount sufficient pam_permit.so\n")
    put(tmp_path, "etc/ssh/sshd_config", "PermitRootLogin no\n")
    put(tmp_path, "etc/sudoers.d/old", "x")
    known, look = Known(), Look()
    authentication(look, known, tmp_path)
    assert look.traces == []
    known.learned = True
    put(tmp_path, "etc/ssh/sshd_config", "PermitRootLogin yes\n")
    put(tmp_path, "etc/ssh/sshd_config.d/x.conf", "PermitRootLogin yes\n")
    (tmp_path / "etc/sudoers.d/old").unlink()
    put(tmp_path, "etc/pam.d/su", "auth sufficient pam_permit.so\n")
    put(
        tmp_path,
        "etc/pam.d/login",
        "auth [success=1 default=ignore] /opt/x.so\nauth required /lib/security/pam_unix.so\n",
    )
    authentication(look, known, tmp_path)
    assert {one.subject: one.level for one in look.traces} == {
        "/etc/ssh/sshd_config": Level.MEDIUM,
        "/etc/ssh/sshd_config.d/x.conf": Level.MEDIUM,
        "/etc/sudoers.d/old": Level.MEDIUM,
        "/etc/pam.d/su": Level.MEDIUM,
        "/etc/pam.d/su: pam_permit lets in everybody, whatever the password": Level.HIGH,
        "/etc/pam.d/login": Level.MEDIUM,
        "/etc/pam.d/login: a PAM module that no package brought has a say: /opt/x.so": Level.HIGH,
    }


# ------------------------------------------------------------------------------------------------ signatures

FILES = """# a comment
tmp/.evil          ! Evil rootkit ::/rootkits/evil.php
*/evil.o           ! Evil rootkit ::
usr/share/.home*   ! Home rootkit
nothing here
"""
STRINGS = """ls   !evilstring|^/bin/xx|[abc]zz!Evil trojan
ps   !never seen!
top  !(unclosed!broken
"""


def test_known_paths_names_and_strings(tmp_path: Path) -> None:
    signatures = read_signatures([put(tmp_path, "files.txt", FILES), put(tmp_path, "trojans.txt", STRINGS)])
    assert [one.location.line for one in signatures.problems] == [5, 3]
    root = tmp_path / "root"
    put(root, "tmp/.evil")
    put(root, "usr/share/.homeXY")
    put(root, "opt/deep/evil.o")
    put(root, "opt/deep/good.o")
    put(root, "bin/ls", b"\x7fELF\0/bin/xx\0")
    put(root, "bin/ps", b"\x7fELF\0 /bin/xx\0")
    look = Look()
    known_paths(look, signatures, root)
    known_strings(look, signatures, lambda path: False, root)
    walk_files(look, Known(), Walk(root), signatures.named)
    assert found(look) == {
        "/tmp/.evil": (TraceKind.KNOWN_PATH, Level.HIGH),
        "/usr/share/.homeXY": (TraceKind.KNOWN_PATH, Level.HIGH),
        "/opt/deep/evil.o": (TraceKind.KNOWN_PATH, Level.HIGH),
        "/bin/ls": (TraceKind.KNOWN_STRINGS, Level.HIGH),
    }
    assert look.blind == {(Check.SIGNATURES, Blind.SIGNATURE_UNUSABLE): 2}
    hinted = Look()
    known_strings(hinted, signatures, lambda path: True, root)
    assert found(hinted) == {"/bin/ls": (TraceKind.KNOWN_STRINGS, Level.INFORMATIONAL)}


@pytest.mark.corpus
def test_the_signatures_of_ossec_are_read(corpus: Path) -> None:
    folder = corpus / "ossec" / "rootcheck"
    read = read_signatures([folder / "rootkit_files.txt", folder / "rootkit_trojans.txt"])
    assert len(read.paths) > 200
    assert len(read.names) > 30
    assert len(read.strings) > 70
    assert len(read.problems) <= 1
