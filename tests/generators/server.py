"""A small OpenAI-compatible server that answers, or misbehaves as it is told."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from PIL import Image

from generators.openai_captions import OpenAICaptioner, OpenAICaptionSettings


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Server:
    """Misbehaves by ``script``, one entry a request, and answers properly when it's used up.

    An entry is a status, ``(status, headers, body)``, something to call before it answers properly, or
    one of "slow", "drip", "cut", "hang up", "not json", "list".
    """

    script: deque = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0
    pause: float = 0.0
    answer: Any = None
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _http: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server._serve(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        serve = self._http.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        assert self._http is not None
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Settings of a part that asks this server, without a key and with little patience."""
        return {
            "base_url": self.url,
            "model": "tiny",
            "send_data": True,
            "api_key_env": None,
            "timeout": 5.0,
            "retries": 2,
        } | changes

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.title(): value for name, value in handler.headers.items()}
        seen = Seen(handler.path, headers, body)
        with self._lock:
            self.seen.append(seen)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            act = self.script.popleft() if self.script else None
        try:
            time.sleep(self.pause)
            self._act(handler, act, seen)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self._lock:
                self._at_once -= 1

    def _act(self, handler: BaseHTTPRequestHandler, act: Any, seen: Seen) -> None:
        if act is None:
            answer = self.answer if self.answer is not None else self._proper(seen)
            self._send(handler, 200, {}, json.dumps(answer).encode())
        elif callable(act):
            act()
            self._send(handler, 200, {}, json.dumps(self._proper(seen)).encode())
        elif isinstance(act, int):
            self._send(handler, act, {}, b'{"error": {"message": "as told"}}')
        elif isinstance(act, tuple):
            self._send(handler, *act)
        elif act == "slow":
            time.sleep(1.0)
            self._send(handler, 200, {}, json.dumps(self._proper(seen)).encode())
        elif act == "drip":
            handler.send_response(200)
            handler.send_header("content-length", "1000")
            handler.end_headers()
            for _ in range(60):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.1)
        elif act == "cut":
            whole = json.dumps(self._proper(seen)).encode()
            handler.send_response(200)
            handler.send_header("content-length", str(len(whole)))
            handler.end_headers()
            handler.wfile.write(whole[: len(whole) // 2])
            handler.close_connection = True
        elif act == "hang up":
            handler.close_connection = True
            handler.connection.close()
        elif act == "not json":
            self._send(handler, 200, {}, b"<html>bad gateway</html>")
        elif act == "list":
            self._send(handler, 200, {}, b"[1, 2]")
        else:
            raise AssertionError(act)

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    @staticmethod
    def _proper(seen: Seen) -> dict[str, Any]:
        """What a server with a model answers; here the seed is all that the answer depends on."""
        if seen.path.endswith("/chat/completions"):
            message = {"role": "assistant", "content": f"caption {seen.fields['seed']}"}
            usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
            return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        seed = seen.fields.get("seed", 0) if seen.path.endswith("/generations") else 0
        image = Image.new("RGB", (32, 32), (seed % 256, seed // 256 % 256, seed // 65536 % 256))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        usage = {"input_tokens": 20, "output_tokens": 300, "total_tokens": 320}
        data = [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]
        return {"data": data, "usage": usage}


def captioner(server: Server, **settings: Any) -> OpenAICaptioner:
    """A captioner that asks a server."""
    return OpenAICaptioner(OpenAICaptionSettings(**server.settings(**settings)))
