"""What a notification says, harmless and bounded, for every way of telling.
Counterpart: email, pagerduty, webhook and apprise put these words into their own forms."""

from __future__ import annotations

from dataclasses import dataclass

from vedette.model.levels import Level
from vedette.model.notifications import MemberAlert, Notification, NotificationKind
from vedette.text.escape import shorten, terminal
from vedette.text.times import rfc3339

MOST_MEMBERS = 50
_NOT_KEY = frozenset({"rule.id", "level", "host.id", "host.name"})


@dataclass(frozen=True, slots=True)
class MemberView:
    """One alert as people read it: no control characters, every text bounded."""

    id: str
    rule_id: str
    rule_name: str
    level: str
    state: str
    host: str
    key: dict[str, str]
    summary: str
    advice: str
    sample: str
    count: int
    opened: str
    last: str
    resolved: str

    @property
    def key_text(self) -> str:
        """The key fields on one line."""
        return ", ".join(f"{name}={value}" for name, value in self.key.items())


@dataclass(frozen=True, slots=True)
class View:
    """A notification as people read it."""

    kind: str
    title: str
    level: str
    receiver: str
    group: dict[str, str]
    created: str
    url: str
    total: int
    members: tuple[MemberView, ...]

    @property
    def group_text(self) -> str:
        """The labels of the group on one line."""
        return ", ".join(f"{name}={value}" for name, value in self.group.items())

    @property
    def left_out(self) -> int:
        """How many alerts of the group are not shown."""
        return max(self.total - len(self.members), 0)


def clean(text: str, limit: int) -> str:
    """`text` on one line without harmful characters, at most `limit` characters."""
    # Cut before and after: escaping a megabyte of control characters would cost, and grows what it escapes.
    return shorten(terminal(text[: limit + 1]), limit)


def labels_view(labels: dict[str, str], limit: int = 20) -> dict[str, str]:
    """At most `limit` labels, names and values clean."""
    return {clean(name, 64): clean(value, 255) for name, value in list(labels.items())[:limit]}


def web_url(text: str) -> str:
    """`text` where it is a plain web address, else nothing: it becomes a link."""
    harmless = text.isascii() and text.isprintable() and not any(character in text for character in " <>\"'`\\")
    return text if harmless and text.startswith(("https://", "http://")) and len(text) <= 2000 else ""


def member_view(member: MemberAlert) -> MemberView:
    """`member` as people read it."""
    return MemberView(
        id=clean(member.id, 64),
        rule_id=clean(member.rule_id, 128),
        rule_name=clean(member.rule_name, 200),
        level=member.level.label,
        state=clean(member.state, 32),
        host=clean(member.labels.get("host.name", ""), 255),
        key=labels_view({name: value for name, value in member.labels.items() if name not in _NOT_KEY}, 10),
        summary=clean(member.summary, 500),
        advice=clean(member.advice, 1000),
        sample=clean(member.sample, 1000),
        count=member.count,
        opened=rfc3339(member.opened_at),
        last=rfc3339(member.last_event_at),
        resolved=rfc3339(member.resolved_at) if member.resolved_at else "",
    )


def view(notification: Notification) -> View:
    """`notification` as people read it."""
    members = tuple(member_view(member) for member in notification.members[:MOST_MEMBERS])
    return View(
        kind=notification.kind.value,
        title=_title(notification, members),
        level=notification.level.label,
        receiver=clean(notification.receiver, 64),
        group=labels_view(notification.group_labels),
        created=rfc3339(notification.created_at),
        url=web_url(notification.external_url),
        total=max(notification.total, len(members)),
        members=members,
    )


def _title(notification: Notification, members: tuple[MemberView, ...]) -> str:
    """`[HIGH] SSH brute force: web01, source.ip=198.51.100.7 (+3 more)`: level, rule, host, key."""
    marks = {
        NotificationKind.TRIGGER: notification.level.label.upper(),
        NotificationKind.ACKNOWLEDGE: f"ACKNOWLEDGED {notification.level.label.upper()}",
        NotificationKind.RESOLVE: f"RESOLVED {notification.level.label.upper()}",
    }
    mark = f"[{marks[notification.kind]}]"
    if not members:
        return clean(f"{mark} {', '.join(notification.group_labels.values()) or 'alerts'}", 200)
    # The member that gave the group its level speaks for it.
    first = max(members, key=lambda member: Level.parse(member.level))
    names = list(dict.fromkeys(member.rule_name or member.rule_id for member in members))
    what = shorten(names[0] if len(names) == 1 else f"{first.rule_name or first.rule_id} and other rules", 80)
    where = shorten(first.host, 60)
    about = shorten(first.key_text, 100)
    more = max(notification.total, len(members)) - 1
    text = f"{mark} {what}: {', '.join(part for part in (where, about) if part)}".rstrip(": ")
    return clean(f"{text} (+{more} more)" if more else text, 240)


def plain_text(shown: View) -> str:
    """The notification as plain text, `\\n` between lines."""
    lines = [shown.title, ""]
    if shown.group:
        lines.append(f"Group: {shown.group_text}")
    lines.append(f"Alerts: {shown.total}")
    if shown.url:
        lines.append(f"More: {shown.url}")
    for member in shown.members:
        lines += ["", f"{member.level.upper()}  {member.rule_name or member.rule_id}  [{member.state}]"]
        lines += [
            f"  {name + ':':<9} {value}"
            for name, value in (
                ("Rule", member.rule_id),
                ("Host", member.host),
                ("Key", member.key_text),
                ("Events", f"{member.count}, {member.opened} to {member.last}"),
                ("Resolved", member.resolved),
                ("What", member.summary),
                ("Sample", member.sample),
                ("Advice", member.advice),
                ("Alert", member.id),
            )
            if value
        ]
    if shown.left_out:
        lines += ["", f"… and {shown.left_out} more alerts in this group, not shown here."]
    return "\n".join(lines) + "\n"


def digest_title(shown: list[View]) -> str:
    """What a digest of `shown` is called: how many of what, the highest level first."""
    total = sum(one.total for one in shown)
    level = max((Level.parse(one.level) for one in shown), default=Level.INFORMATIONAL)
    names = list(dict.fromkeys(member.rule_name or member.rule_id for one in shown for member in one.members))
    what = f": {', '.join(shorten(name, 60) for name in names[:3])}" if names else ""
    more = f" and {len(names) - 3} more rules" if len(names) > 3 else ""
    return clean(f"[DIGEST {level.label.upper()}] {total} alerts in {len(shown)} notifications{what}{more}", 240)


def digest_text(shown: list[View]) -> str:
    """Several notifications as one plain text."""
    ruler = "\n" + "-" * 72 + "\n\n"
    return f"{digest_title(shown)}\n{ruler}{ruler.join(plain_text(one) for one in shown)}"
