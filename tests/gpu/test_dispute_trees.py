"""Trees over tensors are those of the protocol, whatever way they are hashed and however the tensor lies in memory."""

from __future__ import annotations

import pytest
import torch

from milon.gpu.dispute_numbers import tensor_bytes
from milon.gpu.dispute_trees import build_root_tree, build_value_tree, compute_value_root
from milon.pol.dispute_tree import PIECE_ELEMENTS, compute_leaf_digest, compute_levels, verify_opening


@pytest.mark.parametrize("count", [1, 63, 64, 65, 64 * 16, 64 * 16 + 1, 64 * 300 + 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_a_value_hashes_as_the_protocol_says(count: int, dtype: torch.dtype) -> None:
    value = (torch.arange(count) % 7 - 3).to(dtype)
    raw = bytes(value.numpy().tobytes())
    width = PIECE_ELEMENTS * value.element_size()
    pieces = [raw[start : start + width] for start in range(0, len(raw), width)]
    tree = build_value_tree(value)
    assert tuple(tuple(level) for level in tree.levels) == compute_levels([compute_leaf_digest(p) for p in pieces])
    assert tree.root == compute_value_root(value)
    for leaf in {0, len(pieces) // 2, len(pieces) - 1}:
        opening = tree.open(leaf)
        verify_opening(tree.root, opening)
        assert opening.raw == pieces[leaf]


def test_nan_is_one_number_and_the_way_in_memory_is_none() -> None:
    value = torch.tensor([[1.0, torch.nan], [-torch.nan, -0.0]])
    odd = value.clone()
    odd.view(torch.int32)[0, 1] = 0x7FC12345
    assert compute_value_root(odd) == compute_value_root(value)
    assert bytes(tensor_bytes(value))[4:12] == bytes.fromhex("0000c07f") * 2
    wide = torch.randn(70, 1, generator=torch.Generator().manual_seed(1)).expand(70, 3)
    assert compute_value_root(wide) == compute_value_root(wide.contiguous())
    assert compute_value_root(wide.t()) != compute_value_root(wide)
    assert compute_value_root(torch.zeros(2)) != compute_value_root(-torch.zeros(2))


def test_roots_lie_under_leaves() -> None:
    roots = [bytes([place]) * 32 for place in range(40)]
    tree = build_root_tree(roots)
    opening = tree.open(33)
    verify_opening(tree.root, opening)
    assert opening.raw == roots[33]
    assert tree.root.hex() == "521eceb87232edd2f0a8a9063ff57f399ac95c039e9b89a05aa697f88fbbcb2c"
