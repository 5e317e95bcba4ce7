"""The node's HTTP API: reads are open to this machine, what spends or stops needs the token."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from milon.api.guard import Guard
from milon.api.shapes import (
    shape_account,
    shape_block,
    shape_genesis,
    shape_job,
    shape_job_summary,
    shape_receipt,
    shape_refusal,
    shape_report,
    shape_status,
    shape_validator,
)
from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, Digest, JobId
from milon.base.units import Height, Round
from milon.chain.transaction import Transaction
from milon.node.view import NodePort

STATUS_BY_REASON = {
    Reason.UNKNOWN: 404,
    Reason.UNAVAILABLE: 503,
    Reason.NOT_ALLOWED: 403,
    Reason.TOO_LARGE: 413,
    Reason.FULL: 507,
}  # any other reason is 400: the request itself is at fault

READERS = 2  # threads that read for the API

Handler = Callable[["Api", Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Api:
    """What the handlers work with."""

    node: NodePort  # the node
    uploads: Path  # a folder for bytes on their way in
    blob_bytes_max: int  # the largest upload, and the largest blob fetched for somebody
    readers: trio.CapacityLimiter  # reading a long history takes a while, in which the node must go on


def answering(handler: Handler, api: Api) -> Callable[[Request], Awaitable[Response]]:
    """The handler as Starlette wants it, with refusals as JSON."""

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(api, request)
        except Rejected as refusal:
            return JSONResponse(shape_refusal(refusal), STATUS_BY_REASON.get(refusal.reason, 400))

    return endpoint


def _digest(request: Request, name: str) -> Digest:
    text = request.path_params[name]
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    require(len(raw) == 32, Reason.MALFORMED, f"{text[:80]!r} is not 64 hexadecimal digits")
    return Digest(raw)


def _found(value: Any, what: str) -> Any:
    if value is None:
        raise Rejected(Reason.UNKNOWN, f"this node knows no such {what}")
    return value


async def get_status(api: Api, request: Request) -> Response:
    """The node at a glance."""
    return JSONResponse(shape_status(api.node.status()))


async def get_genesis(api: Api, request: Request) -> Response:
    """Genesis for people."""
    return JSONResponse(shape_genesis(api.node.genesis()))


async def get_genesis_file(api: Api, request: Request) -> Response:
    """Genesis for a new node: its canonical bytes."""
    return Response(encode(api.node.genesis()), media_type="application/cbor")


async def get_jobs(api: Api, request: Request) -> Response:
    """All jobs, a line each."""
    views = await trio.to_thread.run_sync(api.node.jobs, limiter=api.readers)
    return JSONResponse({"jobs": [shape_job_summary(view) for view in views]})


async def get_job(api: Api, request: Request) -> Response:
    """One job with its rounds."""
    job = JobId(_digest(request, "job"))
    view = _found(await trio.to_thread.run_sync(api.node.job, job, limiter=api.readers), "job")
    return JSONResponse(shape_job(view))


async def get_report(api: Api, request: Request) -> Response:
    """How a closed round's updates became one, where this node aggregated them."""
    job, text = JobId(_digest(request, "job")), request.path_params["round"]
    is_number = text.isascii() and text.isdigit() and len(text) <= 9
    require(is_number, Reason.MALFORMED, f"{text[:80]!r} is not the number of a round")
    view = await trio.to_thread.run_sync(api.node.report, job, Round(int(text)), limiter=api.readers)
    return JSONResponse(shape_report(_found(view, "report")))


async def get_account(api: Api, request: Request) -> Response:
    """One account; an unused one has zeros."""
    account = AccountId(_digest(request, "account"))
    return JSONResponse(shape_account(await trio.to_thread.run_sync(api.node.account, account, limiter=api.readers)))


async def get_validators(api: Api, request: Request) -> Response:
    """The members of the running epoch and the candidates for the next."""
    views = await trio.to_thread.run_sync(api.node.validators, limiter=api.readers)
    return JSONResponse({"validators": [shape_validator(view) for view in views]})


async def get_validator(api: Api, request: Request) -> Response:
    """One account as a validator; one that never stood has zeros."""
    account = AccountId(_digest(request, "account"))
    view = await trio.to_thread.run_sync(api.node.validator, account, limiter=api.readers)
    return JSONResponse(shape_validator(view))


async def get_block(api: Api, request: Request) -> Response:
    """The block at a height, with a hash, or the latest final one."""
    text = request.path_params["name"]
    name: Height | Digest
    if text == "latest":
        name = api.node.status().height
    elif text.isascii() and text.isdigit() and len(text) < 19:
        name = Height(int(text))
    else:
        name = _digest(request, "name")
    return JSONResponse(
        shape_block(_found(await trio.to_thread.run_sync(api.node.block, name, limiter=api.readers), "block"))
    )


async def get_transaction(api: Api, request: Request) -> Response:
    """What became of a transaction."""
    view = _found(api.node.receipt(_digest(request, "transaction")), "transaction")
    return JSONResponse(shape_receipt(view))


async def get_blob(api: Api, request: Request) -> Response:
    """A blob's bytes, fetched from peers where this node lacks them."""
    path = await api.node.get_blob(_digest(request, "blob"), api.blob_bytes_max)
    return FileResponse(path, media_type="application/octet-stream")


async def post_transaction(api: Api, request: Request) -> Response:
    """Take a signed, encoded transaction; whether it took effect is asked for afterwards by its hash."""
    size_max_bytes = api.node.genesis().parameters.transaction_bytes_max
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        require(len(raw) <= size_max_bytes, Reason.TOO_LARGE, f"a transaction has at most {size_max_bytes} bytes")
    transaction = decode(Transaction, bytes(raw), size_max_bytes)
    return JSONResponse({"transaction": (await api.node.submit(transaction)).hex()}, 202)


async def post_blob(api: Api, request: Request) -> Response:
    """Take a file as a blob; it is on disk before it counts, and gone if the upload breaks off."""
    path = api.uploads / f"upload-{secrets.token_hex(8)}"
    try:
        size_bytes = 0
        async with await trio.open_file(path, "xb") as file:
            async for chunk in request.stream():
                size_bytes += len(chunk)
                require(
                    size_bytes <= api.blob_bytes_max, Reason.TOO_LARGE, f"a blob has at most {api.blob_bytes_max} bytes"
                )
                await file.write(chunk)
        return JSONResponse({"blob": (await api.node.put_blob(path)).hex()}, 201)
    except OSError as error:
        raise Rejected(Reason.FULL, f"the node cannot keep the upload: {error.strerror}") from None
    finally:
        path.unlink(missing_ok=True)


async def post_stop(api: Api, request: Request) -> Response:
    """End the node in good order."""
    await api.node.stop()
    return JSONResponse({"stopping": True}, 202)


_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/v1/status", get_status),
    ("GET", "/v1/genesis", get_genesis),
    ("GET", "/v1/genesis.cbor", get_genesis_file),
    ("GET", "/v1/jobs", get_jobs),
    ("GET", "/v1/jobs/{job}", get_job),
    ("GET", "/v1/jobs/{job}/rounds/{round}/report", get_report),
    ("GET", "/v1/accounts/{account}", get_account),
    ("GET", "/v1/validators", get_validators),
    ("GET", "/v1/validators/{account}", get_validator),
    ("GET", "/v1/blocks/{name}", get_block),
    ("GET", "/v1/transactions/{transaction}", get_transaction),
    ("GET", "/v1/blobs/{blob}", get_blob),
    ("POST", "/v1/transactions", post_transaction),
    ("POST", "/v1/blobs", post_blob),
    ("POST", "/v1/stop", post_stop),
)


async def refuse_request(request: Request, error: Exception) -> Response:
    """What fits no route: the same shape of error as everything else."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    refusal = Rejected(Reason.UNKNOWN, f"no {request.method} {request.url.path[:200]} in this API")
    return JSONResponse(shape_refusal(refusal), status)


def make_app(node: NodePort, token: str, uploads: Path, blob_bytes_max: int) -> Guard:
    """The ASGI application over a node; `uploads` is an existing folder on the disk of the blobs."""
    api = Api(node, uploads, blob_bytes_max, trio.CapacityLimiter(READERS))
    routes = [Route(path, answering(handler, api), methods=[method]) for method, path, handler in _ROUTES]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: refuse_request}), token)
