"""Keeps this node's learning duties going: starts what the newest ledger asks for, ends what it no longer asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import trio

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.chain.transaction import Action
from milon.contracts.claims import load_claim
from milon.contracts.duties import Duty, Role, WatchDuty, compute_duties, name_duty
from milon.contracts.jobs import load_job, load_open_jobs
from milon.contracts.records import OpenRound, open_round_key
from milon.node.own_rounds import OpenRounds, find_open_rounds, forget_closed_rounds
from milon.node.supervisor import contain
from milon.node.task_context import FETCH_S, TaskContext, size_of_state
from milon.node.tasks import perform
from milon.state.ledger import Ledger

_LOG = logging.getLogger(__name__)

RETRY_S = 1.0  # pause before a duty whose blobs nobody had is tried again
RETRY_MAX_S = 15.0  # the pause doubles up to here
LEAVE_S = 0.5  # between two looks whether duties that were called off have ended, which takes them two seconds
RUNNING_MAX = 256  # duties under way at once: 64 open jobs, a few each
WATCHING_MAX = 64  # with so many under way no other claim is looked at unasked


class Learner:
    """One task per duty; finished duties leave an action with `deliver`."""

    def __init__(self, context: TaskContext, role: Role, deliver: Callable[[Digest, Action], None]) -> None:
        """`deliver(name, action)`: what to put into the chain for the duty of that name."""
        self._context = context
        self._role = role
        self._deliver = deliver
        self._running: dict[Digest, trio.CancelScope] = {}
        self._done: set[Digest] = set()
        self._prefetched: set[Digest] = set()
        self._asked: set[Digest] = set()  # duties of the newest ledger
        self._open: OpenRounds | None = None  # as of the last tidying up

    def update(self, ledger: Ledger, nursery: trio.Nursery) -> tuple[Digest, ...]:
        """Follow the newest final ledger; the names of all duties it holds for this account."""
        duties = {name_duty(duty): duty for duty in compute_duties(ledger, self._role)}
        for name, scope in self._running.items():
            if name not in duties:
                scope.cancel()
        self._done &= duties.keys()
        self._asked = set(duties)
        for name, duty in duties.items():
            limit = WATCHING_MAX if isinstance(duty, WatchDuty) else RUNNING_MAX
            if name not in self._running and name not in self._done and len(self._running) < limit:
                scope = trio.CancelScope()
                self._running[name] = scope
                nursery.start_soon(self._fulfil, name, duty, scope)
        self._prefetch(ledger, nursery)
        self._tidy_up(find_open_rounds(ledger, self._role.account), nursery)
        return tuple(duties)

    def _tidy_up(self, still_open: OpenRounds, nursery: trio.Nursery) -> None:
        """When rounds were closed, and at the start: forget what is kept of them."""
        if still_open != self._open:
            self._open = still_open
            nursery.start_soon(self._forget_closed, still_open)

    async def _forget_closed(self, still_open: OpenRounds) -> None:
        while self._running.keys() - self._asked:
            await trio.sleep(LEAVE_S)  # the worker may still be writing for them
        forget = partial(trio.to_thread.run_sync, forget_closed_rounds, self._context.folder, still_open)
        try:
            if self._context.checkpoints is not None:
                await contain("forgetting states", partial(self._context.checkpoints.retain, still_open))
            await contain("tidying up", forget)
        except Rejected as error:
            _LOG.warning("%s", error)

    async def _fulfil(self, name: Digest, duty: Duty, scope: trio.CancelScope) -> None:
        """Do the duty, again and again while blobs are missing; a refusal of another kind is final."""
        kind = type(duty).__name__
        pause_s = RETRY_S
        try:
            with scope:
                while True:
                    try:
                        action = await contain(kind, partial(perform, self._context, duty))
                    except Rejected as error:
                        _LOG.warning("%s %s: %s", kind, name.hex()[:8], error)
                        if error.reason is not Reason.UNAVAILABLE:
                            self._done.add(name)
                            return
                        await trio.sleep(pause_s)
                        pause_s = min(2 * pause_s, RETRY_MAX_S)
                        continue
                    self._done.add(name)
                    if action is not None:
                        self._deliver(name, action)
                    return
        finally:
            del self._running[name]

    def _prefetch(self, ledger: Ledger, nursery: trio.Nursery) -> None:
        """Fetch claimed states as they come in, so that a trainer may go away before the round is aggregated."""
        wanted: dict[Digest, Digest] = {}  # a claimed state, and the state its round began with
        for job in load_open_jobs(ledger):
            opened = ledger.load(open_round_key(job), OpenRound)
            if opened is not None:
                state = load_job(ledger, job).state
                wanted.update((load_claim(ledger, claim).final_state, state) for claim in opened.claims)
        self._prefetched &= wanted.keys()
        for blob in sorted(wanted.keys() - self._prefetched):
            self._prefetched.add(blob)
            nursery.start_soon(self._prefetch_one, blob, wanted[blob])

    async def _prefetch_one(self, blob: Digest, state: Digest) -> None:
        try:
            await contain("prefetching", partial(self._fetch, blob, state))
        except Rejected as error:
            _LOG.info("state %s is not there yet: %s", blob.hex()[:8], error)
            self._prefetched.discard(blob)

    async def _fetch(self, blob: Digest, state: Digest) -> None:
        await self._context.blobs.ensure(blob, await size_of_state(self._context, state), FETCH_S)
