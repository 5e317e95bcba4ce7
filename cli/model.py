"""`milon model`: fetch what a job has trained."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .connection import open_node
from .options import DEFAULT_NODE, JsonOption, NodeOption
from .output import print_json, print_lines

_noun = typer.Typer(help="Trained models.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="model")


@_noun.callback()
def root_of_noun() -> None:
    """Trained models."""


@_noun.command(epilog="Example: milon model pull latest -o model.safetensors")
def pull(
    job: Annotated[str, typer.Argument(help='The job, its first digits, or "latest".')],
    out: Annotated[Path, typer.Option("--out", "-o", help="The safetensors file to write.")],
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Fetch a job's newest model as a safetensors file for plain PyTorch; it appears whole or not at all."""
    from milon.client.submission import export_model
    from milon.node.folder import refusing_os_errors

    with refusing_os_errors(f"cannot write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".milon-model-", dir=out.parent) as name, open_node(root) as client:
            found = client.find_job(job)
            state, predict, model = (Path(name) / part for part in ("state", "predict", "model"))
            client.get_blob(found["state"], state)
            client.get_blob(found["predict"], predict)
            answer = export_model(state, predict, model)
            model.replace(out)
    if as_json:
        print_json({"job": found["job"], "state": found["state"], "round": found["round"], "file": str(out), **answer})
    else:
        print_lines(
            [f"{out}: the model of job {found['job'][:8]} after {found['round']} rounds, state {found['state']}"]
        )
