"""Run by `bench.aggregate` in an environment of its own: what other libraries take for the same files, as JSON lines.

    python aggregate_others.py THREADS FAULTY FILE...

byzfl 0.0.11 imports torchvision, matplotlib and seaborn for parts that aggregate nothing; a stand-in that has every
attribute takes their place. Of flwr only the file with its aggregation functions is loaded. byzfl's NNM gathers n - f
vectors for each of n (36 GB at 32 x 10 million), so it gets a tenth of the columns.
"""

import importlib.machinery
import importlib.util
import json
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

TURNS = 2  # the better one counts


class _AnyName(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


class _Anything(metaclass=_AnyName):
    """A class that can be called with anything and has every attribute."""

    def __init__(self, *arguments, **named):
        pass


class _Everything(types.ModuleType):
    """A module in which every name exists."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


def stand_in(*names):
    for name in names:
        module = _Everything(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        sys.modules[name] = module


def load_flwr():
    """The module of flwr's aggregation functions."""
    stand_in("flwr.common", "flwr.server.client_proxy")
    root = Path(importlib.util.find_spec("flwr").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("flwr_aggregate", root / "server" / "strategy" / "aggregate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clock(name, function):
    best = spent = None
    for _ in range(TURNS):
        begun, worked = time.perf_counter(), time.process_time()
        result = np.asarray(function())
        taken, worked = time.perf_counter() - begun, time.process_time() - worked
        best, spent = (taken, worked) if best is None else (min(best, taken), min(spent, worked))
        if taken > 20:
            break
    first = [float(value) for value in result.ravel()[:4]]
    print(json.dumps({"name": name, "seconds": best, "processor_seconds": spent, "first": first}), flush=True)


def main():
    threads, faulty, files = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(threads)
    stand_in(
        "torchvision", "torchvision.transforms", "torchvision.datasets", "torchvision.models", "matplotlib",
        "matplotlib.pyplot", "seaborn",
    )  # fmt: skip
    import byzfl

    flwr = load_flwr()
    opened = [safe_open(file, "pt") for file in files]
    tensors = [entry.get_tensor("model.w") for entry in opened]
    arrays = [tensor.numpy() for tensor in tensors]
    results = [([array], 1) for array in arrays]
    nnm, median = byzfl.NNM(faulty), byzfl.GeometricMedian()
    few = [tensor[: tensor.numel() // 10].clone() for tensor in tensors]
    clock("byzfl multi-krum", lambda: byzfl.MultiKrum(faulty)(tensors))
    clock("flwr median", lambda: flwr.aggregate_median(results)[0])
    clock("byzfl nnm,geometric-median, d / 10", lambda: median(nnm(few)))
    clock("flwr multi-krum", lambda: flwr.aggregate_krum(results, faulty, len(files) - faulty)[0])


main()
