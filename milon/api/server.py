"""Serves the API on loopback with hypercorn's trio worker."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hypercorn.trio
from hypercorn.config import Config as HypercornConfig

from milon.api.routes import make_app
from milon.node.view import ApiServer, NodePort, Started

HOST = "127.0.0.1"  # nothing here is meant for another machine
KEEP_ALIVE_S = 30  # an idle client's connection is closed after this
SHUTDOWN_S = 2  # how long running requests may finish once the node stops; a stuck download must not hold it


def _configure(port: int) -> HypercornConfig:
    config = HypercornConfig()
    config.bind = [f"{HOST}:{port}"]
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.graceful_timeout = SHUTDOWN_S
    config.shutdown_timeout = SHUTDOWN_S
    config.h11_max_incomplete_size = 16 << 10  # request line and headers; ours have a few hundred bytes
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("milon.api")
    return config


async def serve(app: Any, port: int, *, task_status: Started) -> None:
    """Serve an ASGI application on loopback until cancelled; reports its real address, `http://127.0.0.1:PORT`."""

    class Bound:
        def started(self, value: list[str]) -> None:
            task_status.started(value[0])

    await hypercorn.trio.serve(app, _configure(port), task_status=Bound())


def make_server(token: str, port: int, uploads: Path, blob_bytes_max: int) -> ApiServer:
    """What a node is handed so that it answers over HTTP; 0 as `port` means a free one."""

    async def serve_node(node: NodePort, *, task_status: Started) -> None:
        await serve(make_app(node, token, uploads, blob_bytes_max), port, task_status=task_status)

    return serve_node
