"""A training job in a user's own words: a PyTorch model, a loss, an optimizer, data, and the terms.

    job = milon.Job(model=Net(), loss=F.cross_entropy, optimizer=lambda parameters: torch.optim.Adam(parameters),
                    train=(images, labels), evaluation=(test_images, test_labels), name="digits", rounds=5)
"""

from __future__ import annotations

import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, Unpack

from milon.client.terms import JobError, TermChoices, verify_choices
from milon.pol.terms import NAME_CHARACTERS_MAX, is_showable

MODULE_NAME = "milon_job"  # under which the user's file is imported


class Job:
    """What to train, on what, and under which terms. Making one computes and sends nothing."""

    def __init__(
        self,
        *,
        model: Any,
        loss: Callable[..., Any],
        optimizer: Callable[..., Any],
        train: Any,
        evaluation: Any,
        name: str = "job",
        schedule: Callable[[Any], Any] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        **terms: Unpack[TermChoices],
    ) -> None:
        """Raises `JobError` for what can be seen to be wrong without computing.

        `model`: a torch.nn.Module. `loss`: of (prediction, target), the mean over the batch, a scalar; for instance
        torch.nn.functional.cross_entropy. `optimizer`: makes a torch.optim optimizer from the parameters. `train` and
        `evaluation`: tensors or NumPy arrays of rows, the inputs first and the target last; or the path of an .npz file
        whose columns are in that order. `schedule`: the factor on every learning rate, from a scalar tensor with the
        number of steps before this one; see `milon.client.schedules`. `clip_norm`, `clip_value`: bounds of the
        gradient, of its norm over all parameters and of each element. `accumulate`: into how many micro-batches a
        step's batch is cut, to save memory; their gradients are added. The terms are those of
        `milon.client.terms.TermChoices`.
        """
        if not callable(model) or not hasattr(model, "state_dict"):
            raise JobError(f"model is a {type(model).__name__}; it must be a torch.nn.Module, made, not its class.")
        if isinstance(model, type):
            raise JobError(f"model is the class {model.__name__}; make one: model={model.__name__}().")
        if not callable(loss):
            raise JobError(f"loss is a {type(loss).__name__}; it must be a function of (prediction, target).")
        if not callable(optimizer) or hasattr(optimizer, "param_groups"):
            raise JobError(
                "optimizer must be a function that makes one from the parameters: "
                "optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3)."
            )
        if not is_showable(name):
            raise JobError(f"a job's name has 1 to {NAME_CHARACTERS_MAX} printable characters.")
        _verify_recipe(schedule, {"clip_norm": clip_norm, "clip_value": clip_value}, accumulate)
        verify_choices(terms)
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.accumulate = accumulate
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.train = train
        self.evaluation = evaluation
        self.name = name
        self.choices: Mapping[str, Any] = dict(terms)


def _verify_recipe(schedule: object, bounds: Mapping[str, object], accumulate: object) -> None:
    if schedule is not None and not callable(schedule):
        raise JobError(f"schedule is a {type(schedule).__name__}; it must be a function of the step, a scalar tensor.")
    for name, bound in bounds.items():
        if bound is not None and not (isinstance(bound, (int, float)) and 0 < bound < math.inf):
            raise JobError(f"{name} is {bound!r}; it must be a number above 0.")
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        raise JobError(f"accumulate is {accumulate!r}; it must be a whole number of micro-batches, at least 1.")


class _UserFile:
    """While the user's file runs, whatever it raises becomes a `JobError` that names the line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, SyntaxError):
            raise JobError(f"{self._path}, line {error.lineno}: {error.msg}; the file is not Python.") from error
        if not isinstance(error, (Exception, SystemExit)):
            return
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self._path)]
        where = f"{self._path}, line {lines[-1].lineno}" if lines else str(self._path)
        text = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
        raise JobError(f"{where}: {text}") from error


def _run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise JobError(f"{path} is not a Python file; a job is described in a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module  # classes look their module up
    sys.path.insert(0, str(path.parent))  # as Python does for a script, so that a file may import its neighbours
    with _UserFile(path):
        spec.loader.exec_module(module)
    return module


def load_job_file(path: Path) -> Job:
    """Run the user's file, on the user's machine, and give the job it makes: the one called `job`, or the only one.

    Raises `JobError` where there is no such file, where it fails (with the line), and where it makes no job or several.
    """
    path = path.resolve()
    if not path.is_file():
        raise JobError(f"there is no file {path}; name the Python file that makes your milon.Job.")
    module = _run_file(path)
    chosen = getattr(module, "job", None)
    if isinstance(chosen, Job):
        return chosen
    jobs = {name: value for name, value in vars(module).items() if isinstance(value, Job)}
    if not jobs:
        raise JobError(
            f"{path} makes no milon.Job at module level; add: "
            "job = milon.Job(model=..., loss=..., optimizer=..., train=..., evaluation=...)."
        )
    if len({id(value) for value in jobs.values()}) > 1:
        raise JobError(f"{path} makes several jobs ({', '.join(sorted(jobs))}); call the one to submit `job`.")
    return next(iter(jobs.values()))
