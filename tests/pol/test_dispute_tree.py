"""Trees of a dispute: what is opened is what was hashed, in its place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.pol.dispute_tree import (
    compute_depth,
    compute_leaf_digest,
    compute_levels,
    compute_node_digest,
    compute_opening,
    compute_place,
    compute_tree_root,
    count_children,
    find_children,
    verify_opening,
)

SIZES = (1, 2, 15, 16, 17, 33, 256, 257, 300)


def raws_of(count: int) -> list[bytes]:
    return [place.to_bytes(3, "big") for place in range(count)]


@pytest.mark.parametrize("count", SIZES)
def test_every_path_leads_to_its_leaf(count: int) -> None:
    raws = raws_of(count)
    levels = compute_levels([compute_leaf_digest(raw) for raw in raws])
    assert levels[-1] == (compute_tree_root(raws),)
    assert len(levels) - 1 == compute_depth(count)
    found: list[int] = []

    def walk(path: tuple[int, ...], shown: Digest) -> None:
        children = find_children(levels, path)
        assert len(children) == count_children(count, path)
        if not children:
            assert shown == compute_leaf_digest(raws[compute_place(path)])
            found.append(compute_place(path))
            return
        assert compute_node_digest(children) == shown
        for child, below in enumerate(children):
            walk((*path, child), below)

    walk((), levels[-1][0])
    assert found == list(range(count))


@pytest.mark.parametrize("count", SIZES)
def test_an_opening_shows_its_leaf_and_nothing_else(count: int) -> None:
    raws = raws_of(count)
    levels = compute_levels([compute_leaf_digest(raw) for raw in raws])
    root = levels[-1][0]
    for index in {0, count // 2, count - 1}:
        opening = compute_opening(levels, index, raws[index])
        verify_opening(root, opening)
        hostile = [
            replace(opening, raw=b"another"),
            replace(opening, index=index + 1),
            replace(opening, siblings=(*opening.siblings, ())),
            replace(opening, siblings=opening.siblings[:-1], count=opening.count + 1),
        ]
        for forged in hostile:
            with pytest.raises(Rejected):
                verify_opening(root, forged)


def test_a_node_is_no_leaf_and_knows_its_width() -> None:
    children = [compute_leaf_digest(raw) for raw in raws_of(3)]
    roots = {compute_node_digest(children), compute_node_digest(children[:2]), compute_leaf_digest(b"".join(children))}
    assert len(roots) == 3


def test_a_path_beyond_the_tree_is_refused() -> None:
    levels = compute_levels([compute_leaf_digest(raw) for raw in raws_of(17)])
    with pytest.raises(Rejected):
        find_children(levels, (2,))
    with pytest.raises(Rejected):
        find_children(levels, (0, 0, 0))
    with pytest.raises(Rejected):
        compute_levels([])
    assert count_children(17, (2,)) == 0
