"""Pager and mail are away for an hour: nothing is lost, the most urgent is told first, and a dead engine does not beat.
Counterpart: `app.pipeline` and `notify.outbox` over a real state, real servers, and a clock that is told to go on."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.app.parts import ATTACKER, BRUTE, FAILED, STARTED, STOPPED, FakeEnforcer, Rig
from tests.notify.servers import Echo
from tests.scenarios.parts.certificates import Authority
from tests.scenarios.parts.pagerduty import ROUTING_KEY, Answer, PagerDuty
from tests.scenarios.parts.processes import wait_until
from tests.scenarios.parts.smtp import SmtpServer

from vedette.alerts import lifecycle
from vedette.alerts.settings import AlertsSettings
from vedette.model.alerts import Disposition
from vedette.model.clock import MINUTE
from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind, OutboxItem, OutboxState
from vedette.model.rules import Op, Rule, Test
from vedette.notify.heartbeat import Heartbeat
from vedette.notify.outbox import Outbox
from vedette.notify.receivers import build
from vedette.notify.settings import HeartbeatSettings, NotifySettings
from vedette.store.state import State


def event(identity: str, level: Level) -> Rule:
    return Rule(identity, identity, level, when=Test("event.action", Op.EQUALS, (identity,)), key=("source.ip",))


RULES = (
    FAILED,
    BRUTE,
    STOPPED,
    STARTED,
    event("probed", Level.LOW),
    event("broken-in", Level.HIGH),
    event("root-shell", Level.CRITICAL),
)
ROUTES = AlertsSettings.model_validate(
    {
        "route": {
            "receiver": "mail",
            "group_wait": "0s",
            "group_interval": "1m",
            "routes": [{"matchers": ["level=~high|critical"], "receiver": "pager"}],
        }
    }
)


class House:
    """Pipeline, state and outbox with real servers; minutes pass when the test says so."""

    def __init__(self, state: State, settings: NotifySettings) -> None:
        self.rig = Rig(state=state, rules=RULES, alerts=ROUTES)
        self.state = state
        self._notifiers = build(settings, self.rig.clock, self.rig.counters)
        self._outbox = Outbox(state, self._notifiers, settings, self.rig.clock, self.rig.counters, random=lambda: 0.5)

    async def close(self) -> None:
        for notifier in self._notifiers.values():
            await notifier.close()
        self.state.close()

    async def minute(self, *lines: str) -> None:
        """A minute with these records in it."""
        if lines:
            self.rig.take(*lines)
        self.rig.wait(MINUTE)
        await self._outbox.flush()

    async def minutes(self, count: int) -> None:
        for _ in range(count):
            await self.minute()

    async def until_told(self) -> None:
        """Minutes pass until nothing waits; an hour at most."""
        for _ in range(60):
            if not self.state.outbox([OutboxState.PENDING]):
                return
            await self.minute()
        pytest.fail(f"still waiting: {self.state.outbox([OutboxState.PENDING])}")

    def resolve(self, rule_id: str) -> None:
        """A person resolves the open alert of this rule."""
        now = self.rig.clock.now()
        (alert,) = [one for one in self.rig.alerts_of(rule_id) if not one.resolved_at]
        with self.state.transaction() as tx:
            changes = lifecycle.resolve(tx, alert.id, "alice", Disposition.TRUE_POSITIVE, now)
            self.rig.router.plan(changes, tx, now)

    async def hour(self) -> None:
        """An hour of which nobody can be told anything."""
        line = self.rig.line
        await self.minute(line("stopped"))
        await self.minute(line("probed"))
        await self.minute(*(line("failed", more=f"source.port={port}") for port in range(3)))
        await self.minutes(2)
        await self.minute(line("root-shell"))
        await self.minutes(4)
        self.resolve("broken-in")
        await self.minutes(10)
        await self.minute(line("broken-in", "192.0.2.9"))
        await self.minutes(9)
        await self.minute(line("started"))
        await self.minutes(9)
        await self.minute(line("stopped"))
        await self.minutes(19)


@pytest.fixture
def plain_smtp() -> Iterator[SmtpServer]:
    server = SmtpServer(None)
    yield server
    server.close()


@pytest.fixture
async def house(
    tmp_path: Path, plain_smtp: SmtpServer, pagerduty: PagerDuty, authority: Authority
) -> AsyncIterator[House]:
    (tmp_path / "key").write_text(ROUTING_KEY)
    settings = NotifySettings.model_validate(
        {
            "receivers": {
                "mail": {"type": "email", "port": plain_smtp.port, "to": ["ops@example.org"]},
                "pager": {
                    "type": "pagerduty",
                    "routing_key": {"file": str(tmp_path / "key")},
                    "url": pagerduty.enqueue_url,
                    "trust": {"ca_file": str(authority.ca_file)},
                },
            }
        }
    )
    made = House(State(tmp_path / "state.db"), settings)
    await made.minute(made.rig.line("broken-in"), made.rig.line("probed", "192.0.2.77"))
    await made.until_told()
    assert (len(pagerduty.incidents), len(plain_smtp.mails)) == (1, 1)
    yield made
    await made.close()


def rules_by_key(items: list[OutboxItem]) -> dict[str, str]:
    return {one.notification.dedup_key: one.notification.group_labels["rule.id"] for one in items}


def check_incidents(house: House, pagerduty: PagerDuty) -> None:
    """Each episode one incident; open are those whose alerts are."""
    rules = rules_by_key(house.state.outbox())
    keys = [one.dedup_key for one in pagerduty.incidents]
    assert len(set(keys)) == len(keys)
    assert sorted(rules[one.dedup_key] for one in pagerduty.open_incidents()) == ["broken-in", "root-shell", "stopped"]
    assert [rules[one.dedup_key] for one in pagerduty.incidents if one.state == "resolved"] == ["broken-in"]


def check_states(house: House) -> None:
    """All delivered, but for the page of a condition that was over before anybody could be called."""
    undelivered = [one for one in house.state.outbox() if one.state is not OutboxState.DELIVERED]
    assert [
        (one.state, one.notification.kind, one.notification.group_labels["rule.id"], one.notification.episode)
        for one in undelivered
    ] == [(OutboxState.SUPERSEDED, NotificationKind.TRIGGER, "stopped", 1)]


@pytest.mark.slow
async def test_after_an_hour_without_pager_and_mail_the_most_urgent_is_told_first(
    house: House, plain_smtp: SmtpServer, pagerduty: PagerDuty
):
    before = len(pagerduty.requests)
    pagerduty.down()
    plain_smtp.down()
    await house.hour()
    assert (len(pagerduty.requests), len(plain_smtp.mails)) == (before, 1)
    assert house.rig.counters.value("notify_attempt", "network-error") > 20
    pagerduty.up()
    plain_smtp.up()
    await house.until_told()

    rules = rules_by_key(house.state.outbox())
    told = [(one.body["event_action"], rules[one.body["dedup_key"]]) for one in pagerduty.requests[before:]]
    assert told == [
        ("trigger", "root-shell"),
        ("resolve", "broken-in"),
        ("trigger", "broken-in"),
        ("resolve", "stopped"),
        ("trigger", "stopped"),
    ]
    subjects = [str(mail.message["Subject"]) for mail in plain_smtp.mails[1:]]
    assert [next(name for name in ("Logger stopped", "Guesser", "probed") if name in one) for one in subjects] == [
        "Logger stopped",
        "Guesser",
        "probed",
    ]
    assert len({mail.message_id for mail in plain_smtp.mails}) == 4
    check_states(house)
    check_incidents(house, pagerduty)


@pytest.mark.slow
async def test_servers_that_answer_with_errors_for_an_hour_lose_nothing_either(
    house: House, plain_smtp: SmtpServer, pagerduty: PagerDuty
):
    pagerduty.always(Answer("status", 503))
    plain_smtp.fail_always(451)
    await house.hour()
    assert house.rig.counters.value("notify_attempt", "server-error") > 20
    pagerduty.recover()
    plain_smtp.recover()
    await house.until_told()

    # In each group in order, whatever came first among the groups.
    rules = rules_by_key(house.state.outbox())
    told: dict[str, list[str]] = {}
    for one in pagerduty.requests:
        if one.accepted:
            told.setdefault(rules[one.body["dedup_key"]], []).append(one.body["event_action"])
    assert told == {
        "broken-in": ["trigger", "resolve", "trigger"],
        "stopped": ["resolve", "trigger"],
        "root-shell": ["trigger"],
    }
    assert len({mail.message_id for mail in plain_smtp.mails}) == len(plain_smtp.mails) == 4
    check_states(house)
    check_incidents(house, pagerduty)


async def test_the_heartbeat_stops_while_the_engine_hangs_and_goes_on_after_it():
    entered, released = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        entered.set()
        released.wait(30)

    rig = Rig(enforcers=[FakeEnforcer(hang)])
    async with Echo() as server:
        settings = HeartbeatSettings.model_validate({"url": server.url, "stale_after": "2m"})
        heart = Heartbeat(settings, lambda: rig.pipeline.last_alive, rig.clock, rig.counters)
        rig.pipeline.tick()
        assert await heart.beat()
        engine = threading.Thread(target=rig.attack)
        engine.start()
        try:
            wait_until("the engine hangs", entered.is_set)
            rig.clock.advance(MINUTE)
            assert await heart.beat()
            rig.clock.advance(2 * MINUTE)
            assert not await heart.beat()
            # Hanging, it has already committed: the block will be in force after a restart.
            assert rig.decided() == {ATTACKER}
        finally:
            released.set()
            engine.join()
        rig.pipeline.tick()
        assert await heart.beat()
        await heart.close()
    assert len(server.requests) == 3
    assert rig.counters.value("heartbeat_withheld") == 1
