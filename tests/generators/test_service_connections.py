"""Connections to a server that can't be made, and those that are open when the process ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from generators.base import CaptionRequest
from generators.openai_captions import OpenAICaptioner, OpenAICaptionSettings
from generators.service_errors import ServiceRefused
from tests.generators.server import Server, captioner


def test_a_server_that_is_not_there_ends_the_call(ask: Callable[..., CaptionRequest]) -> None:
    with Server() as gone:
        asked = captioner(gone, retries=1)
    with pytest.raises(
        ServiceRefused, match=r"seems to be down; .*connection failed: .* \(2 tries"
    ):
        asked.generate([ask(1)])


def test_a_server_that_takes_no_connection_is_told_apart_from_a_slow_one(
    ask: Callable[..., CaptionRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generators.service.CONNECT_SECONDS", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        # A queue that is full lets further ones wait.
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        settings = OpenAICaptionSettings(
            base_url=f"http://127.0.0.1:{address[1]}/v1",
            model="m",
            send_data=True,
            api_key_env=None,
            retries=0,
            timeout=30.0,
        )
        with pytest.raises(ServiceRefused, match="seems to be down; .*no connection within 0.3 s"):
            OpenAICaptioner(settings).generate([ask(1)])
        for one in waiting:
            one.close()


def test_a_process_that_ends_without_closing_says_nothing(server: Server) -> None:
    script = (
        "import sys; from generators.openai_captions import *; from generators.base import *;"
        "from PIL import Image;"
        "captioner = OpenAICaptioner(OpenAICaptionSettings(base_url=sys.argv[1], model='m',"
        " send_data=True, api_key_env=None));"
        "request = CaptionRequest('a', Image.new('RGB', (8, 8)), (), (1,));"
        "print(captioner.generate([request])[0].candidates[0].text)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, server.url], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip()
    assert ended.stderr == ""


def test_a_proxy_of_the_environment_is_used_and_no_password_of_netrc_is_sent(
    server: Server,
    ask: Callable[..., CaptionRequest],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine model.invalid login me password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    far = captioner(server, base_url="http://model.invalid/v1")
    assert far.generate([ask(1)])[0].error is None
    assert server.seen[0].path == "http://model.invalid/v1/chat/completions"
    assert "Authorization" not in server.seen[0].headers
    assert captioner(server).generate([ask(2)])[0].error is None
    assert server.seen[1].path == "/v1/chat/completions"


def test_a_proxy_of_another_kind_is_named(
    server: Server, ask: Callable[..., CaptionRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ServiceRefused, match="a proxy of scheme 'socks5'"):
        captioner(server, base_url="http://model.invalid/v1").generate([ask(1)])


def test_a_key_of_several_lines_is_refused_before_anything_is_sent(
    server: Server, ask: Callable[..., CaptionRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_KEY", "sk-one\nsk-two")
    with pytest.raises(ServiceRefused, match="OWN_KEY holds no key, but several lines"):
        captioner(server, api_key_env="OWN_KEY").generate([ask(1)])
    assert server.seen == []
