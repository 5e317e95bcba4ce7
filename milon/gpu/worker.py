"""The worker process: `python -m milon.gpu.worker --threads N`, requests on standard input, answers on standard output.

Each message is a wire value of `milon.pol.work` behind its length (4 bytes, big-endian). The process ends when its
standard input closes, in the middle of work too: a node that dies takes its workers along. What cannot be done is
answered by `WorkRefused`; any other failure is a fault of this code, ends the process with a traceback on standard
error, and the node starts another. Whatever libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.gpu.devices import CPU, HELP
from milon.pol.work import (
    AggregateRound,
    Answer,
    CheckJob,
    DisputeAnswer,
    DisputeChoose,
    Progress,
    RefereePiece,
    ReplaySegments,
    Request,
    Result,
    TrainSegments,
    WorkRefused,
)

LENGTH_BYTES = 4
MESSAGE_BYTES_MAX = 64 << 20  # a job's list of 65,536 files, twice over
NO_MEMORY = "this machine has not enough memory for the work"
OUT_OF_MEMORY_SCORE = b"1000"  # Linux's highest: where memory ends, it ends this process and not the node
NICENESS = 5  # consensus keeps the cores when both want them
DETAIL_CHARACTERS_MAX = 512  # what a person reads, and what a transaction may carry


def read_message(source: BinaryIO) -> bytes | None:
    """The next message; None where the stream ends between messages or inside one."""
    head = source.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "big")
    if length > MESSAGE_BYTES_MAX:
        raise Rejected(Reason.TOO_LARGE, f"a message of {length} bytes")
    raw = source.read(length)
    return raw if len(raw) == length else None


def write_message(sink: BinaryIO, value: Answer | Request) -> None:
    """Send one message."""
    raw = encode(value)
    sink.write(len(raw).to_bytes(LENGTH_BYTES, "big") + raw)
    sink.flush()


def _refuse(reason: Reason, detail: str) -> WorkRefused:
    return WorkRefused(reason.value, detail[:DETAIL_CHARACTERS_MAX])


def _make_performer(threads: int, device: str, shards: int) -> Callable[[Request, Callable[[Progress], None]], Result]:
    """Load torch, which takes seconds, and give what performs a request."""
    import torch

    from milon.gpu import devices, work_check, work_rounds
    from milon.gpu.work_dispute import Disputes
    from milon.gpu.work_library import Library

    torch.set_num_threads(threads)
    choice = devices.choose(device, shards)
    devices.prepare(choice)
    library = Library(choice)
    disputes = Disputes(library)

    def perform(request: Request, answer: Callable[[Progress], None]) -> Result:
        try:
            with torch.no_grad():
                disputes.make_room(request)
                match request:
                    case DisputeAnswer() | DisputeChoose() | RefereePiece():
                        return disputes.perform(request)
                    case CheckJob():
                        return work_check.check_job(request, library)
                    case TrainSegments():
                        return work_rounds.train(request, library, answer)
                    case ReplaySegments():
                        return work_rounds.replay(request, library)
                    case AggregateRound():
                        return work_rounds.aggregate(request, library, answer)
        except Rejected as rejected:
            return _refuse(rejected.reason, rejected.detail)
        except MemoryError:
            return _refuse(Reason.OVER_BUDGET, NO_MEMORY)
        except RuntimeError as error:  # torch has no type of its own for it on a CPU
            if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
                raise
            return _refuse(Reason.OVER_BUDGET, NO_MEMORY)

    return perform


def _listen(source: BinaryIO, requests: queue.Queue[bytes]) -> None:
    """Pass requests on; end the process as soon as nobody is left to answer."""
    while (raw := read_message(source)) is not None:
        requests.put(raw)
    os._exit(0)  # the main thread may be deep in a training step, which nobody waits for any more


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Private copies of standard input and output; the public ones now read nothing and write to standard error."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return source, sink


def _offer_itself_when_memory_ends() -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
        file.write(OUT_OF_MEMORY_SCORE)


def main() -> None:
    """Answer requests until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m milon.gpu.worker", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads that one operation may use")
    parser.add_argument("--device", default=CPU, help=HELP)
    parser.add_argument("--shards", type=int, default=0, help="parts of every batch in lockstep; the bits are the same")
    chosen = parser.parse_args()
    source, sink = _take_standard_streams()
    os.nice(NICENESS)
    _offer_itself_when_memory_ends()
    requests: queue.Queue[bytes] = queue.Queue(maxsize=1)  # the node sends one request at a time
    threading.Thread(target=_listen, args=(source, requests), daemon=True).start()
    perform = _make_performer(chosen.threads, chosen.device, chosen.shards)
    while True:
        request: Request = decode(Request, requests.get(), MESSAGE_BYTES_MAX)
        try:
            write_message(sink, perform(request, lambda progress: write_message(sink, progress)))
        except BrokenPipeError:
            sys.exit(0)


if __name__ == "__main__":
    main()
