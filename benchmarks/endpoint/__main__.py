"""Serve the fake AWS on a free port of 127.0.0.1 and say which, as one JSON line."""

from __future__ import annotations

import asyncio
import gc
import json
import os

from benchmarks.endpoint.server import Endpoint
from benchmarks.endpoint.wire import HttpProtocol

try:
    from uvloop import run
except ImportError:
    from asyncio import run


async def serve() -> None:
    loop = asyncio.get_running_loop()
    endpoint = Endpoint(loop)
    server = await loop.create_server(
        lambda: HttpProtocol(endpoint.answer), "127.0.0.1", 0, backlog=4_096
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "pid": os.getpid()}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    # Millions of small objects that never die: looking through them would stop the answers.
    gc.disable()
    run(serve())
