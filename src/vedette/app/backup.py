"""Everything a hub cannot be made anew from, in one file while it runs; and back onto a bare machine, all or nothing.
Counterpart: `cli.backup`; docs/backup.md says what is in it and what is not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

import msgspec
import zstandard

from vedette import __version__
from vedette.app.host import STATE_FILE, account_of, is_running
from vedette.app.sealing import Opened, Sealed, Sealing, read_header
from vedette.model.errors import StateError, VedetteError

FORMAT, VERSION = "vedette-backup", 1
CONFIGURATION = "configuration"
"""Folder of the archive with the configuration; a restore leaves it there for a person to look at."""
_MANIFEST = "manifest.json"
_MOST_MANIFEST = 64 << 20
_MOST_FILES = 5_000_000
_SQLITE = b"SQLite format 3\0"
_LEFT_OUT = frozenset({"lock", "spool", "jetstream", "broker", "cache", CONFIGURATION})
"""Names at the top of a data folder that belong to a running process, or are there to be emptied."""
_SIDES = ("-wal", "-shm", "-journal")
_STREAMS = "streams"
"""Folder in which the broker keeps what agents send again."""
_LAKE = "lake"
_CHUNK = 1 << 20


class File(msgspec.Struct, frozen=True):
    """A file of the archive. sha256: hexadecimal; root: whether it belonged to root."""

    size: int
    sha256: str
    mode: int
    root: bool = False


class Manifest(msgspec.Struct, frozen=True):
    """The first member: what follows, and nothing else may. lake: whether the event store's files are in it."""

    format: str
    version: int
    program: str
    created: int
    host: str
    lake: bool
    files: dict[str, File]


@dataclass(frozen=True, slots=True)
class Done:
    """What a backup or a restore was of. notes: what a person should know of it."""

    files: int
    size: int
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------- backup
def backup(
    data: Path,
    to: Path,
    *,
    now: int,
    host: str,
    configuration: Mapping[str, Path],
    lake: bool = False,
    passphrase: str = "",
    state_url: str = "",
) -> Done:
    """Write the archive `to`, whole or not at all; `data` may be in use.

    configuration: name in the archive -> file. state_url: where the state is no file of the folder, which is then not
    in the archive. StateError where something cannot be read or the archive not be written.
    """
    if not (data / STATE_FILE).is_file() and not state_url:
        raise StateError(f"there is no state in {data}", hint="--data names another folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".vedette-backup-", dir=to.absolute().parent) as made:
            staged = dict(_staged(data, Path(made), lake=lake))
            for name, path in configuration.items():
                staged[f"{CONFIGURATION}/{name}"] = _copied(path, Path(made) / f"c{len(staged)}")
            manifest = Manifest(
                FORMAT, VERSION, __version__, now, host, lake, {name: _file(path) for name, path in staged.items()}
            )
            unfinished = Path(made) / "archive"
            with unfinished.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                _write(file, manifest, staged, passphrase)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(to)
            _sync_folder(to.absolute().parent)
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"backup to {to}: {error}", hint="nothing was written; look at disk and rights") from None
    notes = ["the state is in PostgreSQL and not in here: back it up with pg_dump"] if state_url else []
    if not lake and (data / _LAKE).is_dir():
        notes.append("records of the event store are not in here: `--lake` takes them too")
    return Done(len(staged), sum(file.size for file in manifest.files.values()), tuple(notes))


def _staged(data: Path, made: Path, *, lake: bool) -> Iterator[tuple[str, Path]]:
    """Name in the archive -> a file that no longer changes. Databases by SQLite's own online copy."""
    names = list(_walk(data, lake=lake))
    # The state first: what it knows is then in the event store's list too, and not the other way round.
    names.sort(key=lambda path: (path.name != STATE_FILE, not path.name.endswith(".db"), str(path)))
    for number, path in enumerate(names):
        name = path.relative_to(data).as_posix()
        staged = made / f"d{number}"
        with path.open("rb") as file:
            is_database = file.read(len(_SQLITE)) == _SQLITE
        if is_database:
            with closing(sqlite3.connect(path, timeout=30)) as source, closing(sqlite3.connect(staged)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
            _like(path, staged)
        elif path.suffix == ".parquet":
            # Never changed once written: another name is as good as a copy, and costs nothing.
            try:
                os.link(path, staged)
            except OSError:
                _copied(path, staged)
        else:
            _copied(path, staged)
        yield name, staged


def _walk(data: Path, *, lake: bool) -> Iterator[Path]:
    for folder, folders, files in os.walk(data):
        here = Path(folder)
        if here == data:
            folders[:] = [name for name in folders if name not in _LEFT_OUT]
            files = [name for name in files if name not in _LEFT_OUT]
        folders[:] = [name for name in folders if name != _STREAMS]
        in_lake = not lake and here.relative_to(data).parts[:1] == (_LAKE,)
        for name in files:
            path = here / name
            if name.endswith(_SIDES) or name.startswith(".") or not stat.S_ISREG(path.lstat().st_mode):
                continue
            if in_lake and path.suffix != ".db":
                continue
            yield path


def _copied(path: Path, to: Path) -> Path:
    shutil.copyfile(path, to, follow_symlinks=True)
    _like(path, to)
    return to


def _like(path: Path, copy: Path) -> None:
    status = path.stat()
    copy.chmod(stat.S_IMODE(status.st_mode) & 0o700)
    if os.geteuid() == 0:
        os.chown(copy, status.st_uid, status.st_gid)


def _file(path: Path) -> File:
    status = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(status.st_size, digest, stat.S_IMODE(status.st_mode) & 0o700, status.st_uid == 0)


def _write(file: BinaryIO, manifest: Manifest, staged: Mapping[str, Path], passphrase: str) -> None:
    sealing = Sealing.new() if passphrase else None
    header = (
        json.dumps(
            {"format": FORMAT, "version": VERSION, "sealing": msgspec.to_builtins(sealing) if sealing else None},
            separators=(",", ":"),
        ).encode()
        + b"\n"
    )
    file.write(header)
    out: Any = Sealed(file, sealing.key(passphrase), header) if sealing else file
    with zstandard.ZstdCompressor(level=6, write_checksum=True).stream_writer(out, closefd=False) as packed:
        with tarfile.open(fileobj=cast(IO[bytes], packed), mode="w|", format=tarfile.PAX_FORMAT) as archive:
            text = msgspec.json.encode(manifest)
            archive.addfile(_member(_MANIFEST, len(text)), BytesIO(text))
            for name, path in staged.items():
                with path.open("rb") as content:
                    archive.addfile(_member(name, manifest.files[name].size), content)
    if sealing:
        out.finish()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------------------------------------------- restore
def restore(source: Path, data: Path, *, passphrase: str = "", user: str = "nobody") -> tuple[Manifest, Done]:
    """Make the data folder `data` of an archive: verified before it appears under its name, all of it or nothing.

    StateError where the folder is not empty, or the archive is torn, altered, hostile, newer than this version, or
    sealed with another passphrase; nothing is then left behind. user: whose the files become, where root restores.
    """
    data = data.absolute()
    if is_running(data) or (data.exists() and any(data.iterdir())):
        raise StateError(f"{data} is not empty: a restore goes into a new folder", hint="move it away, or --data")
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{data.name}.restoring-", dir=data.parent))
        try:
            with source.open("rb") as file, _archive(file, source, passphrase) as archive:
                manifest = _unpacked(archive, folder, source)
            _given(folder, manifest, user)
            # An empty folder of this name is replaced in the same step.
            folder.rename(data)
            _sync_folder(data.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise StateError(
            f"restore of {source}: {error}", hint="nothing was restored; look at disk and rights"
        ) from None
    notes = [f"the configuration lies in {data / CONFIGURATION}: look at it and put it where it belongs"]
    if not any(name.startswith(f"{CONFIGURATION}/") for name in manifest.files):
        notes = ["the archive has no configuration"]
    if STATE_FILE not in manifest.files:
        notes.append("the state is not in the archive: it was kept in PostgreSQL")
    return manifest, Done(len(manifest.files), sum(one.size for one in manifest.files.values()), tuple(notes))


def inspect(source: Path, *, passphrase: str = "") -> Manifest:
    """What an archive holds, every byte of it verified, nothing kept. StateError as `restore`."""
    try:
        with source.open("rb") as file, _archive(file, source, passphrase) as archive:
            return _unpacked(archive, None, source)
    except OSError as error:
        raise StateError(f"{source}: {error}") from None


@contextmanager
def _archive(file: BinaryIO, source: Path, passphrase: str) -> Iterator[tarfile.TarFile]:
    header, sealing = read_header(file, FORMAT, VERSION, str(source))
    if sealing is not None and not passphrase:
        raise StateError(f"{source} is sealed", hint="--passphrase-file or --passphrase-env")
    content: Any = Opened(file, sealing.key(passphrase), header) if sealing is not None else file
    try:
        with zstandard.ZstdDecompressor().stream_reader(cast(IO[bytes], content), closefd=False) as unpacked:
            with tarfile.open(fileobj=cast(IO[bytes], unpacked), mode="r|") as archive:
                yield archive
            # Behind the last member nothing but the archive's own end: a seal or checksum there is looked at, too.
            while unpacked.read(_CHUNK):
                pass
    except (tarfile.TarError, zstandard.ZstdError, EOFError, ValueError) as error:
        raise StateError(f"{source} is torn or altered: {error}", hint="nothing was restored") from None


def _unpacked(archive: tarfile.TarFile, folder: Path | None, source: Path) -> Manifest:
    def bad(what: str) -> StateError:
        return StateError(f"{source}: {what}", hint="the archive is damaged or not ours; nothing was restored")

    manifest: Manifest | None = None
    left: dict[str, File] = {}
    for member in archive:
        content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
        if content is None:
            raise bad(f"{member.name!r} is no plain file")
        if manifest is None:
            if member.name != _MANIFEST or member.size > _MOST_MANIFEST:
                raise bad("it does not begin with its manifest")
            manifest = _manifest(content.read(), bad)
            left = dict(manifest.files)
            if folder is not None and sum(one.size for one in left.values()) > shutil.disk_usage(folder).free:
                raise StateError(f"{folder.parent} has no room for what is in {source}", hint="make room")
            continue
        wanted = left.pop(member.name, None)
        if wanted is None or wanted.size != member.size:
            raise bad(f"{member.name!r} is not what its manifest says")
        if not _kept(content, folder / member.name if folder is not None else None, wanted):
            raise bad(f"{member.name!r} was altered")
    if manifest is None or left:
        raise bad(f"{len(left)} files are missing")
    return manifest


def _manifest(text: bytes, bad: Any) -> Manifest:
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise bad(f"its manifest cannot be read: {error}") from None
    if manifest.format != FORMAT or manifest.version > VERSION or len(manifest.files) > _MOST_FILES:
        raise bad(f"its manifest is of format {manifest.format} {manifest.version}")
    for name, file in manifest.files.items():
        path = PurePosixPath(name)
        plain = name == path.as_posix() and not path.is_absolute() and "\0" not in name and len(name) < 1024
        if not plain or not path.parts or {"..", "."} & set(path.parts) or file.size < 0:
            raise bad(f"it names the file {name!r}")
        if any(parent.as_posix() in manifest.files for parent in path.parents):
            raise bad(f"it names {name!r} inside a file")
    return manifest


def _kept(content: IO[bytes], to: Path | None, wanted: File) -> bool:
    """Write one file and sync it; whether it is what the manifest says."""
    digest, size = hashlib.sha256(), 0
    out = None
    if to is not None:
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        out = os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")
    try:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if out is not None:
                out.write(chunk)
        if out is not None:
            os.fchmod(out.fileno(), wanted.mode & 0o700)
            out.flush()
            os.fsync(out.fileno())
    finally:
        if out is not None:
            out.close()
    return size == wanted.size and digest.hexdigest() == wanted.sha256


def _given(folder: Path, manifest: Manifest, user: str) -> None:
    """Give everything to the user that `up` becomes, but for what was root's alone; sync the folders."""
    as_root = os.geteuid() == 0
    uid, gid = account_of(user) if as_root else (-1, -1)
    for here, _, files in os.walk(folder):
        for name in files:
            path = Path(here) / name
            if as_root and not manifest.files[path.relative_to(folder).as_posix()].root:
                os.chown(path, uid, gid)
        if as_root:
            os.chown(here, uid, gid)
        _sync_folder(Path(here))


def passphrase_of(text: str) -> str:
    """A passphrase that is long enough to be one; VedetteError where it is not."""
    if len(text) < 12:
        raise VedetteError("the passphrase is shorter than 12 characters", hint="six random words make a good one")
    return text
