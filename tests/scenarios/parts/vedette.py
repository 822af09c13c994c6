"""`vedette up`, `hub`, `agent` as a process in a namespace; ended, killed and started again on the same data.
Counterpart: src/vedette/cli/up.py; every other part is what it meets there; `fleet` puts several together."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from .netns import Namespace
from .processes import PartError, Process, wait_until

_PROGRAM = Path(sys.executable).with_name("vedette")

Settings = Mapping[str, Any]


class Vedette:
    """`vedette up --config FOLDER/vedette.yml --data DATA` in `namespace`; started at once, up when this returns.

    data: default FOLDER/data. env: added to ours. `log` is the standard error of all its lives, `life` of this one.
    verb: as what it runs; started: False where something else comes before `start`.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        settings: Settings,
        *,
        data: Path | None = None,
        env: Mapping[str, str] | None = None,
        verb: str = "up",
        started: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data = data or folder / "data"
        self.config = folder / "vedette.yml"
        self._namespace = namespace
        self._env = {**os.environ, **(env or {})}
        self._verb = verb
        self._lives: list[Process] = []
        self.configure(settings)
        if started:
            self.start()

    @property
    def process(self) -> Process:
        """The process of this life (or of the last one)."""
        return self._lives[-1]

    @property
    def life(self) -> str:
        """What it said since it was started last."""
        return self.process.stderr

    @property
    def log(self) -> str:
        """What it said in all its lives."""
        return "".join(one.stderr for one in self._lives)

    def configure(self, settings: Settings | str) -> None:
        """Write the configuration, `version` added (text: as it is). It takes effect with `reload` or `start`."""
        if isinstance(settings, str):
            self.config.write_text(settings)
            return
        with self.config.open("w") as file:
            YAML(typ="safe").dump(json.loads(json.dumps({"version": 1, **settings}, default=str)), file)

    def start(self) -> None:
        """Start it (again, on the same data) and wait until it says `up`."""
        if self._lives and self.process.poll() is None:
            raise PartError("vedette runs already")
        command = [str(_PROGRAM), self._verb, "--config", str(self.config), "--data", str(self.data)]
        self._lives.append(self._namespace.start(command, name="vedette", env=self._env))
        wait_until("vedette up", lambda: self.is_up() or self.process.poll() is not None, 60)
        if not self.is_up():
            raise PartError(f"vedette ended with {self.process.poll()}: {self.life}")

    def is_up(self, times: int = 1) -> bool:
        """Whether it said so in this life; after each reload it says it again."""
        return self.life.splitlines().count("up") >= times

    def wait_for(self, words: str, times: int = 1, timeout: float = 30.0) -> None:
        """Until `words` were said `times` times in this life."""
        wait_until(f"vedette: {words!r} in:\n{self.life}", lambda: self.life.count(words) >= times, timeout)

    def reload(self) -> None:
        """SIGHUP; see `wait_for` for what it says to it."""
        self.process.signal(signal.SIGHUP)

    def bytes_read(self) -> int:
        """Bytes it has read from anything in this life: tells that it went on reading."""
        counts = Path(f"/proc/{self.process.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in counts)["rchar"])

    def stop(self) -> int:
        """SIGTERM; its exit status once everything is written and told to stop."""
        self.process.signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL, at once."""
        self.process.kill()

    def close(self) -> None:
        """End whatever is left of it."""
        for life in self._lives:
            life.close()

    # ------------------------------------------------------------------------------------------ what others see

    def command(self, *arguments: str, status: int = 0) -> str:
        """Another `vedette` process with the same configuration and data, in the same namespace; its output."""
        argv = [str(_PROGRAM), *arguments, "--config", str(self.config), "--data", str(self.data)]
        done = subprocess.run(
            self._namespace.argv(argv), capture_output=True, text=True, timeout=60, check=False, env=self._env
        )
        if done.returncode != status:
            raise PartError(f"vedette {' '.join(arguments)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def records(self, *arguments: str) -> list[dict[str, Any]]:
        """The JSON lines of a command."""
        return [json.loads(line) for line in self.command(*arguments, "--output", "json").splitlines()]

    def alerts(self, rule: str = "", *, state: str = "all") -> list[dict[str, Any]]:
        """`vedette alerts list`, of one rule or all."""
        return self.records("alerts", "list", "--state", state, *(["--rule", rule] if rule else []))

    def decisions(self) -> list[dict[str, Any]]:
        """`vedette block list --history`: every decision, simulated and ended ones too."""
        return self.records("block", "list", "--history")

    def blocked(self) -> set[str]:
        """Targets in force by `vedette block list`."""
        found = self.records("block", "list")
        return {one["target"] for one in found if one["decision.state"] == "active"}

    def wait_for_alert(self, rule: str, timeout: float = 60.0, **fields: Any) -> dict[str, Any]:
        """The newest alert of `rule` with these fields, once there is one; `source__ip` stands for `source.ip`."""
        wanted = {name.replace("__", "."): value for name, value in fields.items()}
        found: list[dict[str, Any]] = []
        seen: list[tuple[Any, ...]] = []

        def there() -> bool:
            # Another process costs seconds, a look into the state nothing: only a change is worth asking about.
            now = self.query("select count(*), max(updated_at), max(state) from alerts where rule_id = ?", [rule])
            if now != seen:
                seen[:] = now
                found[:] = [one for one in self.alerts(rule) if wanted.items() <= one.items()]
            return bool(found)

        wait_until(f"an alert of {rule} with {wanted} in:\n{self.log}", there, timeout)
        return found[0]

    def wait_for_finding(self, rule: str, count: int = 1, timeout: float = 60.0) -> None:
        """Until `count` findings of `rule` are stored; those of level informational make no alert."""
        wanted = "select count(*) from findings where rule_id = ?"
        wait_until(f"findings of {rule} in:\n{self.log}", lambda: self.query(wanted, [rule])[0][0] >= count, timeout)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Look into the state with SQLite itself, read only."""
        with closing(sqlite3.connect(f"file:{self.data / 'state.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, parameters).fetchall()
