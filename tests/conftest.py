"""Set-up of every test run: which tests can run here (root, corpus), and saying so where some cannot.
Counterpart: the markers declared in pyproject.toml."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PROJECT = Path(__file__).resolve().parents[1]
CORPUS_DEFAULT = PROJECT.parent / "shared" / "data"

# No test asserts a duration, hypothesis' own deadline included; a run in CI is the same each time.
settings.register_profile(
    "vedette",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("vedette")

_left_out = pytest.StashKey[dict[str, int]]()


def corpus_folder() -> Path:
    """The folder the corpus is looked for in, there or not."""
    named = os.environ.get("VEDETTE_CORPUS")
    return Path(named) if named else CORPUS_DEFAULT


def _missing() -> dict[str, str]:
    """Marker -> why tests with it cannot run here."""
    missing = {}
    if os.geteuid() != 0:
        missing["root"] = "not root"
    if not corpus_folder().is_dir():
        missing["corpus"] = f"no folder {corpus_folder()} (name one in VEDETTE_CORPUS)"
    return missing


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("VEDETTE_CORPUS") and not corpus_folder().is_dir():
        # Whoever names a corpus wants it tested: leaving the tests out would look like a pass.
        raise pytest.UsageError(f"VEDETTE_CORPUS names no folder: {corpus_folder()}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    missing = _missing()
    return [
        f"root tests: {'DESELECTED, ' + missing['root'] if 'root' in missing else 'run'}",
        f"corpus tests: {'DESELECTED, ' + missing['corpus'] if 'corpus' in missing else corpus_folder()}",
    ]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Long bytes are named by their place only: what packed them may have put a time in, and test processes that
    do not name their tests alike run none (pytest-xdist)."""
    return argname if isinstance(val, bytes) and len(val) > 40 else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = _missing()
    left_out: dict[str, int] = {}
    kept, dropped = [], []
    for item in items:
        if (item.get_closest_marker("slow") or item.get_closest_marker("corpus")) and not item.get_closest_marker(
            "timeout"
        ):
            # Against what hangs; how long they take depends on what else the machine does.
            item.add_marker(pytest.mark.timeout(900))
        if "corpus" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("corpus"):
            raise pytest.UsageError(f"{item.nodeid} uses the fixture `corpus` and must be marked so")
        reason = next((why for marker, why in missing.items() if item.get_closest_marker(marker)), None)
        if reason is None:
            kept.append(item)
        else:
            dropped.append(item)
            left_out[reason] = left_out.get(reason, 0) + 1
    config.stash[_left_out] = left_out
    if "not slow" in config.getoption("markexpr"):
        for item in kept:
            _try_fewer(item)
    if dropped:
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)


def _try_fewer(item: pytest.Item) -> None:
    """A run that leaves out what is slow is run often: it tries a third of the examples, the whole run all of them."""
    test = getattr(item, "obj", None)
    chosen = getattr(test, "_hypothesis_internal_use_settings", None)
    if chosen is not None and id(test) not in _tried_fewer:
        _tried_fewer.add(id(test))
        test._hypothesis_internal_use_settings = settings(chosen, max_examples=max(5, chosen.max_examples // 3))


_tried_fewer: set[int] = set()
"""Tests whose settings were changed; one with parameters comes as several items."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for reason, count in config.stash.get(_left_out, {}).items():
        terminalreporter.write_line(f"deselected: {count} tests, {reason}")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder with real logs, rules and configurations; only for tests marked `corpus`."""
    return corpus_folder()


@pytest.fixture(scope="session")
def project() -> Path:
    """The root folder of the checkout."""
    return PROJECT


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled rules of a test run stay out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
