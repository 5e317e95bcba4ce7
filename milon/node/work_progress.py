"""What the worker is computing now, as people see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from milon.base.ids import AccountId, JobId
from milon.base.units import Round
from milon.node.view import WorkView
from milon.pol.work import Progress


class WorkBoard:
    """The pieces of work under way, in the order they were begun."""

    def __init__(self) -> None:
        self._views: dict[int, WorkView] = {}
        self._next = 0

    @contextmanager
    def showing(
        self, kind: str, job: JobId, round_number: Round, total: int, trainer: AccountId | None
    ) -> Iterator[Callable[[Progress], None]]:
        """Show a piece of `total` segments while the block runs; the value given counts a segment as done."""
        place = self._next
        self._next += 1
        self._views[place] = WorkView(kind, job, round_number, 0, total, trainer, None)

        def count(progress: Progress) -> None:
            view, resumed = self._views[place], int(progress.resumed)
            segment = resumed or view.segment + 1
            self._views[place] = replace(
                view, segment=segment, loss_bits=int(progress.loss_bits), resumed=resumed or view.resumed
            )

        try:
            yield count
        finally:
            del self._views[place]

    def views(self) -> tuple[WorkView, ...]:
        """A snapshot."""
        return tuple(self._views.values())
