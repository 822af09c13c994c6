"""Makes the log lines that the benchmarks of central logging send, ship and search: numbered, the same for a seed.
Counterpart: `bench.logging_syslog`, `logging_fleet` and `logging_lake` count what has arrived by them."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta

import numpy as np

SERIAL = re.compile(rb" n=(\d{10})\b")
"""Each line has its number so."""
DAY = datetime(2026, 11, 23, tzinfo=UTC)
SECONDS = 86_400

_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "curl/8.5.0",
    "kube-probe/1.30",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)
_PATHS = (
    *("/", "/login", "/cart", "/cart/items", "/checkout", "/api/v1/orders", "/api/v1/users/me", "/static/app.js"),
    *("/static/app.css", "/images/logo.svg", "/search", "/product", "/healthz", "/metrics", "/robots.txt"),
)
_USERS = ("deploy", "anna", "boris", "chen", "dora", "backup", "emil", "fatima", "goran", "hana", "ines", "jonas")
_UNKNOWN = ("admin", "test", "oracle", "postgres", "ubuntu", "git", "pi", "www", "mysql", "tomcat", "es", "guest")
_JOBS = ("run-parts /etc/cron.hourly", "/usr/local/bin/rotate-tokens --quiet", "/usr/bin/php /srv/shop/cron.php")
_UNITS = ("logrotate", "apt-daily", "fstrim", "certbot", "man-db", "e2scrub_all", "phpsessionclean")
_TEXT = (
    "the order was priced again after a voucher and went to the queue of the warehouse where stock is held back until"
    " payment is confirmed by the provider or the hold runs out and the cart is given free once more for others"
)


class Lines:
    """Blocks of numbered lines as some servers send them, RFC 3164 with priority or (file) RFC 3339 without.

    size: bytes of each line without its newline, filled up with words; None = as long as it comes. rate: lines a
    second of the time in their headers, from the beginning of `DAY` on.
    """

    def __init__(self, *, rate: float, size: int | None = None, file: bool = False, seed: int = 1) -> None:
        self._rate, self._size, self._file = rate, size, file
        self._dice = random.Random(seed)
        dice = random.Random(seed + 1)
        self._addresses = [
            f"198.{18 + dice.randrange(2)}.{dice.randrange(256)}.{dice.randrange(256)}" for _ in range(4096)
        ]
        words = _TEXT.split()
        self._words = " ".join(dice.choice(words) for _ in range(20_000))
        self._next = 0

    def block(self, count: int) -> bytes:
        """The next so many lines, a newline behind each."""
        first, self._next = self._next, self._next + count
        pick, make = self._dice.random, self._message
        out = []
        second, stamp = -1, ""
        for number in range(first, first + count):
            at = int(number / self._rate)
            if at != second:
                second, stamp = at, self._stamp(at)
            priority, host, program, text = make(number)
            front = f"{stamp} {host} " if self._file else f"<{priority}>{stamp} {host} "
            front = f"{front}{program}[{1000 + number % 977}]: "
            behind = f" n={number:010d}"
            line = front + text + behind
            if self._size is not None:
                left = self._size - len(line) - 1
                at_word = int(pick() * 60_000)
                if left >= 0:
                    line = f"{line} {self._words[at_word : at_word + left]}"
                else:
                    line = front + text[: self._size - len(front) - len(behind)] + behind
            out.append(line)
        out.append("")
        return "\n".join(out).encode()

    def _stamp(self, second: int) -> str:
        day, second = DAY.day + second // SECONDS, second % SECONDS
        clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        if self._file:
            return f"{DAY.year}-{DAY.month:02d}-{day:02d}T{clock}.{int(self._dice.random() * 1e6):06d}+00:00"
        return f"{DAY:%b} {day:2d} {clock}"

    def _message(self, number: int) -> tuple[int, str, str, str]:
        """Priority, host, program and text of a line; the kinds take turns, what is in them is drawn."""
        pick, kind = self._dice.random, _DECK[number % len(_DECK)]
        address = self._addresses[int(pick() ** 3 * 4096)]
        if kind == "nginx":
            status = 200 if pick() < 0.9 else 404
            return (
                *(190, f"web{int(pick() * 20):02d}", "nginx"),
                f'{address} - - "GET {_PATHS[int(pick() * 15)]}?id={int(pick() * 1e5)} HTTP/1.1" {status} '
                f'{int(pick() * 40_000)} "-" "{_BROWSERS[int(pick() * 6)]}" rt={pick() / 2:.3f}',
            )
        if kind == "api":
            return (
                *(134, f"app{int(pick() * 30):02d}", "api"),
                f'level=info msg="request done" user={_USERS[int(pick() * 12)]} path={_PATHS[int(pick() * 15)]} '
                f"request_id={int(pick() * 2**52):013x} status=200 took={int(pick() ** 4 * 900)}ms pool=7 "
                f"trace=on region=eu-central-1 version=2026.47.{number % 3} client={address}",
            )
        if kind == "sshd":
            user = _UNKNOWN[int(pick() * 12)]
            text = f"Failed password for invalid user {user} from {address} port {int(1024 + pick() * 60_000)} ssh2"
            return 38, f"db{int(pick() * 6):02d}", "sshd", text
        if kind == "login":
            user = _USERS[int(pick() * 12)]
            text = (
                f"Accepted publickey for {user} from {address} port {int(1024 + pick() * 60_000)} ssh2: ED25519 SHA256:"
            )
            return 38, f"db{int(pick() * 6):02d}", "sshd", text + f"{user}0vF3rJ7kq1"
        if kind == "postfix":
            return (
                *(22, "mail01", "postfix/smtp"),
                f"{int(pick() * 2**44):011X}: to=<{_USERS[int(pick() * 12)]}@example.org>, "
                f"relay=mx{number % 3}.example.org[{address}]:25, delay={pick() * 9:.2f}, "
                f"delays=0.05/0/0.3/{pick():.2f}, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as {number * 7919:X})",
            )
        if kind == "kernel":
            return (
                *(4, f"web{int(pick() * 20):02d}", "kernel"),
                f"[UFW BLOCK] IN=eth0 OUT= MAC=52:54:00:12:34:56:52:54:00:ab:cd:ef:08:00 SRC={address} DST=10.1.0.7 "
                f"LEN=60 TOS=0x00 PREC=0x00 TTL={int(40 + pick() * 20)} ID={int(pick() * 65_536)} DF PROTO=TCP "
                f"SPT={int(1024 + pick() * 60_000)} DPT={(22, 23, 445, 3389)[number % 4]} WINDOW=1024 RES=0x00 SYN",
            )
        if kind == "cron":
            return 78, f"web{int(pick() * 20):02d}", "CRON", f"(root) CMD ({_JOBS[number % 3]})"
        return (
            30,
            f"web{int(pick() * 20):02d}",
            "systemd",
            f"{_UNITS[int(pick() * 7)]}.service: Deactivated successfully.",
        )


_DECK = (
    *("nginx", "api", "nginx", "sshd", "api", "nginx", "postfix", "nginx", "api", "kernel"),
    *("nginx", "api", "login", "nginx", "api", "nginx", "cron", "api", "nginx", "systemd"),
)


class Rolled:
    """Lines as `Lines` makes them, in any number and any order: some are made once and come again and again, each time
    with another time and number. What differs between them is that of `kept` lines."""

    def __init__(self, *, per_day: int, begin: datetime, kept: int = 500_000) -> None:
        self._per_day, self._begin, self._kept = per_day, begin, min(kept, per_day)
        block = Lines(rate=1e9).block(self._kept)
        self._data = np.frombuffer(block, np.uint8)
        self._ends = np.flatnonzero(self._data == 10)
        self._starts = np.concatenate([np.zeros(1, np.int64), self._ends[:-1] + 1])
        self._stamps = np.flatnonzero(self._data == 62)
        self._stamps = self._stamps[np.searchsorted(self._stamps, self._starts)] + 1

    def block(self, first: int, count: int) -> bytes:
        """Lines first to first + count, of one day."""
        at = first % self._kept
        count = min(count, self._kept - at)
        low, high = int(self._starts[at]), int(self._ends[at + count - 1]) + 1
        out = self._data[low:high].copy()
        numbers = np.arange(first, first + count)
        seconds, which = np.unique(numbers % self._per_day * SECONDS // self._per_day, return_inverse=True)
        day = self._begin + timedelta(days=first // self._per_day)
        stamps = [f"{day + timedelta(seconds=second):%b %e %H:%M:%S}" for second in seconds.tolist()]
        texts = np.frombuffer("".join(stamps).encode(), np.uint8).reshape(-1, 15)
        out[(self._stamps[at : at + count] - low)[:, None] + np.arange(15)] = texts[which]
        digits = numbers[:, None] // 10 ** np.arange(9, -1, -1) % 10 + 48
        out[(self._ends[at : at + count] - low)[:, None] + np.arange(-10, 0)] = digits
        return out.tobytes()


def serials(block: bytes) -> list[int]:
    """The numbers of the lines in a block."""
    return [int(found) for found in SERIAL.findall(block)]
