"""`vedette up` without namespaces, forked from a process that has it loaded: so quick to start that it can die often.
Counterpart: vedette.py starts the program as a person does; here it is killed dozens of times."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from .processes import PartError, Process, Processes, wait_until

_LAUNCHER = Path(__file__).with_name("forked_main.py")


class ForkedVedette:
    """The program on `folder`/data; `start` and `kill` as often as wanted. log: what all its lives said."""

    def __init__(self, processes: Processes, folder: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "data"
        self._lives = 0
        self._folder = folder
        self._pid = 0
        config = folder / "vedette.yml"
        with config.open("w") as file:
            YAML(typ="safe").dump(json.loads(json.dumps({"version": 1, **settings}, default=str)), file)
        # -P: what lies beside the launcher is no library of it.
        self._launcher: Process = processes.start(
            [sys.executable, "-P", str(_LAUNCHER), str(config), str(self.data)], name="launcher", stdin=True
        )
        wait_until("the launcher", lambda: bool(self._launcher.stdout) or self._launcher.poll() is not None, 60)
        if self._launcher.poll() is not None:
            raise PartError(f"the launcher ended: {self._launcher.stderr}")

    def _ask(self, verb: str, argument: object) -> str:
        before = len(self._launcher.stdout.splitlines())
        self._launcher.stdin.write(f"{verb} {argument}\n".encode())
        self._launcher.stdin.flush()
        wait_until(f"an answer to {verb}", lambda: len(self._launcher.stdout.splitlines()) > before, 60)
        return self._launcher.stdout.splitlines()[before]

    @property
    def _life(self) -> Path:
        return self._folder / f"life{self._lives}.err"

    @property
    def log(self) -> str:
        """What it said in all its lives."""
        return "".join((self._folder / f"life{life + 1}.err").read_text() for life in range(self._lives))

    def start(self) -> None:
        """Begin a life; it may be killed at once."""
        self._lives += 1
        self._pid = int(self._ask("start", self._life))

    def is_up(self) -> bool:
        """Whether it said so in this life."""
        return "up" in self._life.read_text().splitlines()

    def wait_until_up(self) -> None:
        """Until it reads; PartError where it ended by itself."""
        wait_until(f"up; {self._life}", lambda: self.is_up() or not Path(f"/proc/{self._pid}/fd/2").exists(), 60)
        if not self.is_up():
            raise PartError(f"vedette ended: {self._life.read_text()}")

    def kill(self) -> None:
        """SIGKILL; PartError where it had ended by itself before."""
        status = self._end(signal.SIGKILL)
        if status != -signal.SIGKILL:
            raise PartError(f"vedette ended by itself with {status}: {self._life.read_text()}")

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        os.kill(self._pid, number)
        return int(self._ask("reap", self._pid))

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Look into the state with SQLite itself, read only."""
        with closing(sqlite3.connect(f"file:{self.data / 'state.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, parameters).fetchall()
