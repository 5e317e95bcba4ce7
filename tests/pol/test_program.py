"""Programs as values: what checks, what is refused and how, and that no mutation gets further than a refusal."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.pol.operations import check_call
from milon.pol.program import (
    NUMERICS,
    Budget,
    Constant,
    Input,
    InputRole,
    Node,
    Output,
    OutputRole,
    Program,
    ProgramKind,
    compute_last_uses,
    compute_program_digest,
    compute_types,
    describe_operations,
    verify_program,
)
from milon.pol.shapes import DType, TensorType

VECTORS = Path(__file__).parent.parent / "vectors" / "program.json"
FLOAT = DType.FLOAT32


def tiny_training() -> Program:
    """One step of w <- w - 0.5 dL/dw for L = sum((x w)^2), by hand."""
    inputs = (
        Input("model.weight", InputRole.STATE, FLOAT, (3, 1)),
        Input("batch.0", InputRole.BATCH, FLOAT, (4, 3)),
    )
    constants = (
        Constant(FLOAT, (), bytes.fromhex("0000003f")),
        Constant(FLOAT, (), bytes.fromhex("00000040")),
    )
    nodes = (
        Node("matmul", (1, 0), ()),  # 4: x w
        Node("mul", (4, 4), ()),  # 5
        Node("sum", (5,), ((0, 1), (0,))),  # 6: loss
        Node("mul", (4, 3), ()),  # 7: dL/d(x w)
        Node("permute", (1,), ((1, 0),)),  # 8
        Node("matmul", (8, 7), ()),  # 9: dL/dw
        Node("mul", (9, 2), ()),  # 10
        Node("sub", (0, 10), ()),  # 11
    )
    outputs = (
        Output(OutputRole.LOSS, "", 6),
        Output(OutputRole.GRADIENT, "model.weight", 9),
        Output(OutputRole.NEW_STATE, "model.weight", 11),
    )
    return Program(ProgramKind.TRAIN, NUMERICS, 21, inputs, constants, nodes, outputs)


def replace_node(program: Program, place: int, node: Node) -> Program:
    nodes = (*program.nodes[:place], node, *program.nodes[place + 1 :])
    return dataclasses.replace(program, nodes=nodes)


def refusal(program: Program, budget: Budget | None = None) -> Rejected:
    with pytest.raises(Rejected) as caught:
        verify_program(program, budget or Budget())
    return caught.value


def test_a_program_checks_and_travels() -> None:
    program = tiny_training()
    cost = verify_program(program, Budget())
    assert cost.operations > 2 * 4 * 3 * 2 and cost.memory_bytes > program.inputs[1].shape[0] * 12
    assert decode(Program, encode(program)) == program
    assert compute_types(program)[9] == TensorType(FLOAT, (3, 1))
    assert compute_last_uses(program)[:4] == (7, 4, 6, 3)


def test_the_encoding_is_the_recorded_one() -> None:
    recorded = json.loads(VECTORS.read_text())
    assert encode(tiny_training()).hex() == recorded["tiny_training"]
    assert compute_program_digest(tiny_training()).hex() == recorded["tiny_training_digest"]


BAD_NODES = [
    (Node("launch", (0,), ()), Reason.UNSUPPORTED, "no operation 'launch'"),
    (Node("matmul", (1, 0, 0), ()), Reason.MALFORMED, "3 operands"),
    (Node("matmul", (1, 0), ((1,),)), Reason.MALFORMED, "1 attributes"),
    (Node("matmul", (1, 1), ()), Reason.DOES_NOT_FIT, "product of"),
    (Node("matmul", (1, 4), ()), Reason.MALFORMED, "not there yet"),
    (Node("matmul", (1, -1), ()), Reason.MALFORMED, "not there yet"),
    (Node("and", (1, 1), ()), Reason.WRONG_TYPE, "bool"),
    (Node("cast", (1,), ((3,),)), Reason.OUT_OF_RANGE, "element type"),
    (Node("sum", (1,), ((1, 0), (0,))), Reason.NOT_CANONICAL, "ascend"),
    (Node("sum", (1,), ((0,), (2,))), Reason.OUT_OF_RANGE, "flag"),
    (Node("expand", (0,), ((1 << 40, 3, 1),)), Reason.OUT_OF_RANGE, "axis of size"),
    (Node("expand", (0,), ((1 << 20, 1 << 20, 3, 1),)), Reason.OVER_BUDGET, "too many elements"),
    (Node("reshape", (0,), ((2, 2),)), Reason.DOES_NOT_FIT, "does not reshape"),
    (Node("iota", (), ((0,),)), Reason.OUT_OF_RANGE, "axis of size 0"),
    (Node("convolution", (1, 0), ((1, 1), (0, 0), (1, 1), (1,))), Reason.DOES_NOT_FIT, "image"),
    (Node("slice", (1,), ((0,), (0,), (9,), (1,))), Reason.OUT_OF_RANGE, "slice"),
    (Node("permute", (1,), ((0, 0),)), Reason.OUT_OF_RANGE, "order"),
]


def test_no_window_lies_in_the_padding_alone() -> None:
    image = TensorType(FLOAT, (1, 1, 3, 3))
    check_call("max_pool_indices", (image,), ((2, 2), (1, 1), (1, 1), (3, 3)))
    with pytest.raises(Rejected, match="padding alone"):
        check_call("max_pool_indices", (image,), ((2, 2), (1, 1), (1, 1), (4, 1)))


@pytest.mark.parametrize(("node", "reason", "detail"), BAD_NODES)
def test_a_bad_node_is_refused_by_name(node: Node, reason: Reason, detail: str) -> None:
    refused = refusal(replace_node(tiny_training(), 0, node))
    assert refused.reason is reason
    assert detail in refused.detail and f"node 0 ({node.operation})" in refused.detail


def test_outputs_must_fit_the_kind() -> None:
    program = tiny_training()
    loss, gradient, new = program.outputs
    cases = [
        ((loss, gradient), Reason.MALFORMED),
        ((gradient, new), Reason.MALFORMED),
        ((loss, new, new), Reason.DUPLICATE),
        ((Output(OutputRole.LOSS, "", 5), new), Reason.DOES_NOT_FIT),
        ((Output(OutputRole.LOSS, "x", 6), new), Reason.NOT_CANONICAL),
        ((loss, Output(OutputRole.NEW_STATE, "model.weight", 8)), Reason.DOES_NOT_FIT),
        ((loss, new, Output(OutputRole.GRADIENT, "model.bias", 9)), Reason.UNKNOWN),
        ((loss, new, Output(OutputRole.PREDICTION, "", 4)), Reason.NOT_ALLOWED),
        ((Output(OutputRole.LOSS, "", 99), new), Reason.MALFORMED),
    ]
    for outputs, reason in cases:
        assert refusal(dataclasses.replace(program, outputs=outputs)).reason is reason


def test_an_alias_names_a_state_tensor_of_a_prediction() -> None:
    program = tiny_training()
    prediction = dataclasses.replace(program, kind=ProgramKind.PREDICT, outputs=(Output(OutputRole.PREDICTION, "", 4),))
    alias = Output(OutputRole.ALIAS, "model.head", 0)
    verify_program(dataclasses.replace(prediction, outputs=(*prediction.outputs, alias)), Budget())
    cases = [
        ((alias,), Reason.MALFORMED),
        ((*prediction.outputs, alias, alias), Reason.DUPLICATE),
        ((*prediction.outputs, Output(OutputRole.ALIAS, "model.head", 1)), Reason.MALFORMED),
        ((*prediction.outputs, Output(OutputRole.ALIAS, "model.head", 2)), Reason.MALFORMED),
        ((*prediction.outputs, Output(OutputRole.ALIAS, "model.head", -1)), Reason.MALFORMED),
        ((*prediction.outputs, Output(OutputRole.ALIAS, "", 0)), Reason.MALFORMED),
        ((*prediction.outputs, Output(OutputRole.ALIAS, "m" * 257, 0)), Reason.MALFORMED),
        ((*prediction.outputs, Output(OutputRole.ALIAS, "model.weight", 0)), Reason.DUPLICATE),
    ]
    for outputs, reason in cases:
        assert refusal(dataclasses.replace(prediction, outputs=outputs)).reason is reason
    assert refusal(dataclasses.replace(program, outputs=(*program.outputs, alias))).reason is Reason.NOT_ALLOWED


def test_headers_constants_and_inputs_are_checked() -> None:
    program = tiny_training()
    short = Constant(FLOAT, (), b"\0\0\0")
    odd = Constant(DType.BOOL, (3,), b"\0\2\1")
    twice = (program.inputs[0], program.inputs[0])
    whole_draw = (*program.inputs[:1], Input("draw.0", InputRole.DRAW, DType.INT64, (4, 3)))
    cases = [
        (dataclasses.replace(program, numerics="native/1"), Reason.UNSUPPORTED),
        (dataclasses.replace(program, magnitude_bits=14), Reason.OUT_OF_RANGE),
        (dataclasses.replace(program, constants=(short, short)), Reason.DOES_NOT_FIT),
        (dataclasses.replace(program, constants=(odd, odd)), Reason.NOT_CANONICAL),
        (dataclasses.replace(program, inputs=twice), Reason.DUPLICATE),
        (dataclasses.replace(program, inputs=whole_draw), Reason.WRONG_TYPE),
    ]
    for changed, reason in cases:
        assert refusal(changed).reason is reason


def test_a_program_over_budget_is_refused() -> None:
    cost = verify_program(tiny_training(), Budget())
    verify_program(tiny_training(), Budget(cost.memory_bytes, cost.operations))
    assert refusal(tiny_training(), Budget(cost.memory_bytes - 1, cost.operations)).reason is Reason.OVER_BUDGET
    assert refusal(tiny_training(), Budget(cost.memory_bytes, cost.operations - 1)).reason is Reason.OVER_BUDGET


def test_memory_is_freed_after_the_last_use() -> None:
    """A chain of a hundred copies needs room for two, not for a hundred; for the output's check at the end, as much."""
    nodes = tuple(Node("neg", (place,), ()) for place in range(100))
    program = Program(
        ProgramKind.PREDICT,
        NUMERICS,
        21,
        (Input("batch.0", InputRole.BATCH, FLOAT, (1000,)),),
        (),
        nodes,
        (Output(OutputRole.PREDICTION, "", 100),),
    )
    assert verify_program(program, Budget()).memory_bytes == 4 * 4000


def test_what_a_view_looks_at_is_not_freed_before_it() -> None:
    """Ten single elements out of ten large results keep all of these in memory."""
    nodes: list[Node] = []
    for place in range(10):
        nodes += [Node("neg", (0,), ()), Node("slice", (1 + 2 * place,), ((0,), (0,), (1,), (1,)))]
    nodes.append(Node("concatenate", tuple(range(2, 21, 2)), ((0,),)))
    program = Program(
        ProgramKind.PREDICT,
        NUMERICS,
        21,
        (Input("batch.0", InputRole.BATCH, FLOAT, (1000,)),),
        (),
        tuple(nodes),
        (Output(OutputRole.PREDICTION, "", 21),),
    )
    assert verify_program(program, Budget()).memory_bytes > 11 * 4000


def test_drawing_takes_memory_too() -> None:
    program = Program(
        ProgramKind.PREDICT,
        NUMERICS,
        21,
        (Input("draw.0", InputRole.DRAW, FLOAT, (1000,)),),
        (),
        (Node("slice", (0,), ((0,), (0,), (1,), (1,))),),
        (Output(OutputRole.PREDICTION, "", 1),),
    )
    assert verify_program(program, Budget()).memory_bytes > 30 * 1000


def test_mutated_bytes_are_refused_or_still_check() -> None:
    chance = random.Random(20)
    raw = encode(tiny_training())
    refused = 0
    for _ in range(600):
        changed = bytearray(raw)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            verify_program(decode(Program, bytes(changed)), Budget())
        except Rejected:
            refused += 1
    assert refused > 400


def test_every_operation_states_its_rule() -> None:
    rules = dict(describe_operations())
    assert rules["sum"] == "N3" and rules["matmul"] == "N4" and rules["exp"] == "N2" and rules["add"] == "N1"
    assert set(rules.values()) == {"N1", "N2", "N3", "N4", "moves"}


def test_tables_made_at_loading_count_as_long_as_the_program_is_loaded() -> None:
    """A thousand sequences of which one at a time is in use: each is made ahead, so each counts."""
    nodes = tuple(Node("iota", (), ((1000 + place,),)) for place in range(1000))
    last = Node("cast", (1000,), ((0,),))
    program = Program(
        ProgramKind.PREDICT,
        NUMERICS,
        21,
        (Input("batch.0", InputRole.BATCH, FLOAT, (1,)),),
        (),
        (*nodes, last),
        (Output(OutputRole.PREDICTION, "", 1001),),
    )
    assert verify_program(program, Budget()).memory_bytes > 8 * 1000 * 1000
    assert refusal(program, Budget(1 << 20, 1 << 40)).reason is Reason.OVER_BUDGET


@pytest.mark.parametrize(
    ("operation", "dtypes", "attributes", "held"),
    [
        ("sin", "f", (), 144),
        ("cos", "f", (), 144),
        ("log1p", "f", (), 112),
        ("pow", "ff", (), 113),
        ("argmax", "f", ((0,), (0,)), 8),
        ("cast", "f", ((1,),), 18),
        ("scatter_sum", "fi", ((0,), (1 << 20,)), 107),
    ],
)
def test_scratch_is_no_less_than_what_was_measured(
    operation: str, dtypes: str, attributes: tuple[tuple[int, ...], ...], held: int
) -> None:
    """`held`: bytes beside the operands, an element, of the reference on a CPU with a result of its own included."""
    kinds = {"f": DType.FLOAT32, "i": DType.INT64}
    outcome = check_call(operation, tuple(TensorType(kinds[kind], (1 << 20,)) for kind in dtypes), attributes)
    assert outcome.scratch_bytes + outcome.type.size_bytes >= held << 20
