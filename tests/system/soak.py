"""`python -m tests.system.soak --runs N`: the demonstration again and again, and a table of what came of it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.system.demo import DemoFailed, list_faults, poisoner_of, run_demo

HEAD = f"{'run':>4}  {'accuracy':>8}  {'slashed':>7}  {'void':>4}  {'seconds':>7}  verdict"


def run_once(number: int) -> bool:
    """One run, printed as a line; whether it was good. The folder of a bad one stays, and is named."""
    folder = Path(tempfile.mkdtemp(prefix=f"milon-soak-{number}-"))
    try:
        report, _ = run_demo(folder, codes=(0, 1))
    except DemoFailed as failure:
        print(f"{number:>4}  did not end: {failure}\nfolder {folder}", flush=True)
        return False
    faults = list_faults(report, poisoner_of(folder))
    accuracy = report["rounds"][-1]["accuracy"] if report["rounds"] else 0.0
    void = sum(not entry["accepted"] for entry in report["rounds"])
    verdict = "good" if not faults else f"BAD: {'; '.join(faults)}; folder {folder}"
    words = f"{number:>4}  {accuracy:>8.4f}  {len(report['slashed']):>7}  {void:>4}  {report['seconds']:>7}  {verdict}"
    print(words, flush=True)
    if not faults:
        shutil.rmtree(folder)
    return not faults


def main() -> int:
    """Run as often as asked; 1 where any run was not good."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many, one after the other")
    runs = parser.parse_args().runs
    print(HEAD, flush=True)
    good = sum(run_once(number) for number in range(1, runs + 1))
    print(f"{good} of {runs} runs were good", flush=True)
    return 0 if good == runs else 1


if __name__ == "__main__":
    sys.exit(main())
