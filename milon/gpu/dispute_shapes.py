"""The form that program and spot prescribe for an answer, and ways through trees of a known number of leaves."""

from __future__ import annotations

from collections.abc import Sequence

from milon.base.errors import Rejected
from milon.gpu.dispute_piece import ROOT_BYTES, count_piece_bytes, count_pieces
from milon.gpu.dispute_steps import Outline
from milon.gpu.dispute_trees import Tree
from milon.pol.dispute import Answer, Level, Spot, compute_parts, compute_range
from milon.pol.dispute_tree import ARITY, compute_depth, compute_place, count_children, find_children


def path_to(leaf: int, count: int) -> tuple[int, ...]:
    """The children on the way from the root to a leaf of a tree over `count` leaves."""
    depth = compute_depth(count)
    return tuple(leaf // ARITY**level % ARITY for level in reversed(range(depth)))


def show_node(tree: Tree, path: Sequence[int]) -> Answer:
    """The children of a node, or what lies under it where it is a leaf."""
    children = find_children(tree.levels, path)
    return Answer(children=children) if children else Answer(raw=tree.read(compute_place(path)))


def fits_tree(shown: Answer, path: Sequence[int], count: int, leaf_bytes: int) -> bool:
    """Whether an answer shows as many children, or bytes of a leaf, as a tree over `count` leaves has there."""
    if compute_depth(count) <= len(path):
        return len(path) == compute_depth(count) and len(shown.raw) == leaf_bytes > 0
    return not shown.raw and len(shown.children) == count_children(count, path)


def fits_terms(shown: Answer, path: Sequence[int], terms: int) -> bool:
    """Whether an answer shows as many parts as there are of a group of `terms` terms after the choices of `path`."""
    try:
        count = compute_range(terms, path)[1]
    except Rejected:
        return False
    return len(shown.partials) == len(compute_parts(count)) + (not path)


def fits(outline: Outline, spot: Spot, shown: Answer) -> bool:
    """Whether an answer has the form that the program prescribes at `spot`."""
    number = int(spot.value)
    match spot.level:
        case Level.VALUES:
            return fits_tree(shown, spot.path, len(outline.types), ROOT_BYTES)
        case Level.ASSEMBLY:
            return fits_tree(shown, spot.path, outline.leaves, ROOT_BYTES)
        case Level.ELEMENTS if number < len(outline.types):
            found = outline.types[number]
            return fits_tree(shown, spot.path, count_pieces(found), count_piece_bytes(found, compute_place(spot.path)))
        case Level.TERMS if number < len(outline.types):
            group = outline.make_group(number)
            return group is not None and fits_terms(shown, spot.path, group.terms)
        case Level.STEPS:
            return True  # the game has counted them
        case _:
            return False
