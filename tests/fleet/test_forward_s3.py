"""A copy into a bucket of a service that speaks S3: what lies there, once, whatever comes between.
Counterpart: vedette.fleet.forward_s3."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import ValidationError
from tests.fleet.forwarding import HOST, Shelves

from vedette.fleet.forward import ForwardError, ForwardReason
from vedette.fleet.forward_s3 import S3Forward
from vedette.fleet.forward_settings import S3Target


class Service:
    """A bucket `raw` at an endpoint on this machine."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="eu-west-1", aws_access_key_id="key", aws_secret_access_key="word"
        )
        self._client.create_bucket(Bucket="raw", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def objects(self) -> dict[str, bytes]:
        """What lies there, unpacked."""
        listed = self._client.list_objects_v2(Bucket="raw").get("Contents", [])
        return {one["Key"]: gzip.decompress(self._body(one["Key"])) for one in listed}

    def _body(self, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket="raw", Key=key)["Body"].read())

    def close(self) -> None:
        for key in self.objects():
            self._client.delete_object(Bucket="raw", Key=key)
        self._client.delete_bucket(Bucket="raw")
        self._client.close()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def there(endpoint: str) -> Iterator[Service]:
    made = Service(endpoint)
    yield made
    made.close()


def target(where: str, folder: Path, **more: object) -> S3Forward:
    (folder / "secret").write_text("word\n")
    made: dict[str, object] = {
        "type": "s3",
        "name": "copy",
        "bucket": "raw",
        "prefix": "logs/",
        "endpoint": where,
        "region": "eu-west-1",
        "access_key": {"file": str(folder / "secret")},
        "secret_key": {"file": str(folder / "secret")},
        "timeout": 5,
    }
    return S3Forward(S3Target.model_validate(made | more), folder / "copy.intent")


async def test_records_lie_there_by_day_host_and_stream(there: Service, tmp_path: Path) -> None:
    shelves = Shelves()
    shelves.add("journal", b"one", b"two \xff")
    shelves.add("file:/../etc/x", b"three")
    shelves.add("journal", b"four")
    sending = target(there.endpoint, tmp_path)
    assert await sending.send(shelves.put, 0) == 0
    await sending.close()
    assert there.objects() == {
        f"logs/2026-11-24/{HOST}/journal/00000000000000000001.log.gz": b"one\ntwo \xff\nfour\n",
        f"logs/2026-11-24/{HOST}/file:%2F..%2Fetc%2Fx/00000000000000000002.log.gz": b"three\n",
    }


async def test_what_is_sent_again_is_there_once_however_it_is_cut(there: Service, tmp_path: Path) -> None:
    shelves = Shelves()
    for number in range(4):
        shelves.add("journal", b"%d" % number)
    sending = target(there.endpoint, tmp_path)
    await sending.send(shelves.put[:1], 0)
    # The cursor moved to 1; what comes next is written, the cursor is not: a crash.
    await sending.send(shelves.put[1:4], 1)
    again = target(there.endpoint, tmp_path)
    await again.send(shelves.put[1:2], 1)
    await again.send(shelves.put[2:4], 2)
    assert b"".join(lines for _, lines in sorted(there.objects().items())) == b"0\n1\n2\n3\n"


async def test_a_bucket_that_is_not_there_is_said_and_tried_again(there: Service, tmp_path: Path) -> None:
    shelves = Shelves()
    shelves.add("journal", b"one")
    with pytest.raises(ForwardError) as caught:
        await target(there.endpoint, tmp_path, bucket="elsewhere").send(shelves.put, 0)
    assert caught.value.reason is ForwardReason.MISCONFIGURED
    with pytest.raises(ForwardError) as caught:
        await target(there.endpoint, tmp_path, secret_key={"env": "NOT_SET_ANYWHERE"}).send(shelves.put, 0)
    assert caught.value.reason is ForwardReason.MISCONFIGURED
    assert "word" not in str(caught.value)


async def test_nobody_there_is_tried_again(tmp_path: Path) -> None:
    shelves = Shelves()
    shelves.add("journal", b"one")
    with pytest.raises(ForwardError) as caught:
        await target("http://127.0.0.1:1", tmp_path, timeout=0.5).send(shelves.put, 0)
    assert caught.value.reason is ForwardReason.NETWORK_ERROR


@pytest.mark.parametrize(
    "wrong",
    [{"secret_key": None}, {"bucket": "../x"}, {"prefix": "a b"}, {"endpoint": "http://elsewhere.example"}],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        target("https://s3.example.org", tmp_path, **wrong)
