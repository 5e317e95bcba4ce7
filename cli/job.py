"""`milon submit-job` and `milon job`: send a job, and see how it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .connection import load_signer, open_node
from .exits import Exit
from .options import DEFAULT_NODE, FeeOption, JsonOption, KeyOption, NodeOption
from .output import decimal, percent, print_json, print_lines, print_pairs, print_table

noun = typer.Typer(help="Training jobs on the chain.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(help='The job, its first digits, or "latest".')]


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.command("submit-job", epilog="Example: milon submit-job examples/digits/job.py --rounds 5 --watch")(submit_job)
    app.add_typer(noun, name="job")


def submit_job(
    file: Annotated[Path, typer.Argument(help="Python file that makes one milon.Job.", exists=True, dir_okay=False)],
    data: Annotated[Path | None, typer.Option(help="An .npz file instead of the job's training data.")] = None,
    evaluation_data: Annotated[Path | None, typer.Option(help="The same for its evaluation data.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How many rounds.")] = None,
    aggregator: Annotated[str | None, typer.Option(help="Such as arc,nnm,median; see `milon aggregators`.")] = None,
    reward: Annotated[int | None, typer.Option(help="Coins to lock; what is not earned comes back.")] = None,
    audit: Annotated[str | None, typer.Option(help="Share of segments replayed: 0.25, or one a round: 0,0,1.")] = None,
    term: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of another term, such as batch-size=64.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the rounds until the job ends.")] = False,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Capture a PyTorch job, hand its data to the node, and lock its reward on the chain.

    Everything is checked before anything is sent; until the transaction is signed nothing has been spent, and after it
    Ctrl-C only ends the watching.
    """
    from milon.client.submission import capture, send

    from .watch import watch_job

    named = {"train-data": data, "evaluation-data": evaluation_data, "rounds": rounds, "aggregator": aggregator}
    options = {**parse_terms(term or []), **named, "reward": reward, "audit": audit}
    signer = load_signer(root, key)
    with open_node(root, is_spending=True) as client:
        client.status()  # without a node there is no point in capturing
        with capture(file, {name: str(value) for name, value in options.items() if value is not None}) as captured:
            receipt = send(client, signer, captured, fee)
        job = receipt["transaction"]
        if not as_json:
            print_lines([f"job {job} is on the chain at height {receipt['height']}, reward {captured.reward}"])
        if not watch:
            if as_json:
                print_json({"job": job, "height": receipt["height"], "reward": captured.reward})
            return
        finish(watch_job(client, job, is_quiet=as_json), as_json)


def parse_terms(texts: list[str]) -> dict[str, str]:
    """Terms by name from `NAME=VALUE`; a usage error for anything else."""
    from milon.client.terms import TermChoices

    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        known = [term.replace("_", "-") for term in TermChoices.__annotations__]
        if not sign or not value or name.replace("_", "-") not in known:
            detail = f"{text!r} is not NAME=VALUE; the names are {', '.join(known)}"
            raise typer.BadParameter(detail, param_hint="--term")
        found[name.replace("_", "-")] = value
    return found


def finish(job: dict[str, Any], as_json: bool) -> None:
    """Print a job's end, and leave with 1 where it was rejected."""
    if as_json:
        print_json(job)
    else:
        reason = f": {job['reason']}" if job["reason"] else ""
        print_lines([f"job {job['job'][:8]} {job['status']}{reason}; model state {job['state']}"])
    if job["status"] == "rejected":
        raise typer.Exit(Exit.NO)


@noun.command(name="list", epilog="Example: milon job list --json")
def list_jobs(root: NodeOption = DEFAULT_NODE, as_json: JsonOption = False) -> None:
    """List all jobs of the chain, the oldest first."""
    with open_node(root) as client:
        jobs = client.jobs()
    if as_json:
        print_json({"jobs": jobs})
        return
    print_table(
        ("job", "name", "status", "rounds", "trainers", "accuracy", "loss", "paid"),
        [
            (
                job["job"][:16],
                job["name"],
                job["status"],
                f"{job['round']}/{job['rounds']}",
                job["trainers"],
                percent(job["accuracy"]),
                decimal(job["loss"]),
                job["paid"],
            )
            for job in jobs
        ],
    )


@noun.command(epilog="Example: milon job show latest --round 0")
def show(
    job: JobArgument,
    round_number: Annotated[int | None, typer.Option("--round", min=0, help="How this round was aggregated.")] = None,
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Show a job: its terms, its trainers, and what each round came to; or the report of one round's aggregation."""
    from .aggregators import describe_report
    from .watch import describe_round, describe_taken_over

    with open_node(root) as client:
        found = client.find_job(job)
        report = None if round_number is None else client.report(found["job"], round_number)
    if report is not None:
        if as_json:
            print_json(report)
        else:
            print_lines(describe_report(report))
            for closed in found["rounds"]:
                if closed["round"] == round_number:
                    print_lines(describe_taken_over(closed))
        return
    if as_json:
        print_json(found)
        return
    terms = found["terms"]
    print_pairs(
        [
            ("job", found["job"]),
            ("name", found["name"]),
            ("status", f"{found['status']}  {found['reason']}".rstrip()),
            ("submitter", found["submitter"]),
            ("rounds", f"{found['round']} of {terms['rounds']}"),
            ("work", f"{terms['segments_per_round']} segments of {terms['steps_per_segment']} steps a round"),
            ("aggregator", f"{terms['aggregator']}, bears {terms['faulty_count']} hostile updates"),
            ("audit", ", ".join(percent(ppm / 1_000_000) for ppm in terms["audit_ppm"])),
            ("escrow", f"{found['escrow']} left, {found['paid']} paid"),
            ("state", found["state"]),
        ]
    )
    for trainer in found["trainers"]:
        print_lines(
            [
                f"trainer {trainer['account']}  {trainer['capacity']} segments/h, {trainer['segments']} accepted"
                + ("" if trainer["is_active"] else "  out")
            ]
        )
    for closed in found["rounds"]:
        print_lines(describe_round(closed))


@noun.command(epilog="Example: milon job watch latest")
def watch(job: JobArgument, root: NodeOption = DEFAULT_NODE, as_json: JsonOption = False) -> None:
    """Show a job's rounds as they close, until it ends; Ctrl-C ends only the watching."""
    from .watch import watch_job

    with open_node(root) as client:
        finish(watch_job(client, client.find_job(job)["job"], is_quiet=as_json), as_json)
