"""Which errors may pass: I/O and a server's own trouble, never bad data."""

from __future__ import annotations

import errno

import httpx
import pytest

from pipeline.dataset.dataset import DatasetError
from pipeline.storage.passing import may_pass
from tests.flows.test_retries import reply_of


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.EIO, "stumble"), True),
        (OSError(errno.ESTALE, "the share went away"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (httpx.ConnectTimeout("slow"), True),
        (reply_of(503), True),
        (reply_of(429), True),
        (reply_of(404), False),
        (reply_of(401), False),
        (OSError(errno.ENOSPC, "full"), False),
        (OSError(errno.EROFS, "read only"), False),
        (FileNotFoundError("gone"), False),
        (PermissionError("not yours"), False),
        (ValueError("bad"), False),
        (DatasetError("no rows"), False),
        (KeyError("column"), False),
    ],
    ids=repr,
)
def test_what_may_pass(error: BaseException, passes: bool) -> None:
    assert may_pass(error) is passes


def test_what_s3_answers_may_pass_by_its_status() -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    for status, passes in ((503, True), (500, True), (403, False), (404, False)):
        answer = {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        assert may_pass(exceptions.ClientError(answer, "PutObject")) is passes
    assert may_pass(exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9"))
