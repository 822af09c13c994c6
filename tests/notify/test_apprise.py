from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from tests.notify.examples import HOSTILE, member, notification
from tests.notify.servers import Echo

from vedette.model.levels import Level
from vedette.model.notifications import NotificationKind
from vedette.model.reasons import DeliveryReason
from vedette.notify import apprise
from vedette.notify.apprise import AppriseNotifier
from vedette.notify.settings import AppriseSettings

# The library's own: it looks for image types with a module that Python 3.13 lacks.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def made(folder: Path, url: str, timeout: str = "20s") -> AppriseNotifier:
    (folder / "url").write_text(url + "\n")
    return AppriseNotifier(AppriseSettings.model_validate({"url": {"file": str(folder / "url")}, "timeout": timeout}))


async def test_the_library_delivers_to_a_real_service(tmp_path: Path):
    async with Echo() as server:
        chat = made(tmp_path, server.url.replace("http://", "json://"))
        delivery = await chat.deliver(notification(members=[member(sample=HOSTILE)]), item_id="a")
        await chat.close()
    assert delivery.reason is DeliveryReason.DELIVERED
    told = json.loads(server.requests[0].body)
    assert told["title"].startswith("[HIGH] SSH brute force")
    assert told["type"] == "failure"
    assert "x\\x0d\\x0aBcc" in told["message"]


@pytest.mark.parametrize("status", [400, 500])
async def test_a_failure_is_tried_again(tmp_path: Path, status: int):
    async with Echo(status=status) as server:
        chat = made(tmp_path, server.url.replace("http://", "json://"))
        delivery = await chat.deliver(notification(), item_id="a")
        await chat.close()
    assert (delivery.reason, delivery.retry) == (DeliveryReason.SERVER_ERROR, True)


async def test_an_url_nobody_knows_is_a_misconfiguration(tmp_path: Path):
    chat = made(tmp_path, "pigeon://coop/T0KEN")
    delivery = await chat.deliver(notification(), item_id="a")
    await chat.close()
    assert (delivery.reason, delivery.retry) == (DeliveryReason.MISCONFIGURED, False)
    assert "T0KEN" not in delivery.detail


async def test_a_secret_that_is_not_there_is_a_misconfiguration(tmp_path: Path):
    chat = made(tmp_path, "json://x")
    (tmp_path / "url").unlink()
    delivery = await chat.deliver(notification(), item_id="a")
    await chat.close()
    assert delivery.reason is DeliveryReason.MISCONFIGURED


async def test_a_service_that_hangs_is_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    release = threading.Event()

    def hang(url: str, title: str, body: str, kind: str) -> bool:
        return release.wait(30)

    monkeypatch.setattr(apprise, "_send", hang)
    chat = made(tmp_path, "json://x", timeout="50ms")
    delivery = await chat.deliver(notification(), item_id="a")
    assert (delivery.reason, delivery.retry) == (DeliveryReason.TIMEOUT, True)
    # The loop was free all the while, and closing does not wait for the service.
    await asyncio.wait_for(chat.close(), 5)
    release.set()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"kind": NotificationKind.RESOLVE}, "success"),
        ({"kind": NotificationKind.ACKNOWLEDGE}, "info"),
        ({"level": Level.CRITICAL}, "failure"),
        ({"level": Level.MEDIUM}, "warning"),
    ],
)
def test_colours(changes: dict[str, object], kind: str):
    assert apprise._kind(notification(**changes)) == kind
