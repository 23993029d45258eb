"""Training on one device, as written and recorded, next to a plain loop with a DataLoader: the same model and loss. A measurement, not a test.

On a GPU: `python gpu.py` (the paper's preset, 42,492 cells x 2,500 components, 200 epochs; some minutes), `python gpu.py --preset default --components 50
--epochs 60`; anywhere: `python gpu.py --device cpu --cells 2000 --components 50 --epochs 2 --ways "plain loop, DataLoader;float32"`.
Rows are added to a CSV file that names the device.
"""

import argparse
import gc
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import cvqvae.losses
import cvqvae.model
import pandas as pd
import torch
from cvqvae.batches import CellData, chosen_threads
from cvqvae.configuration import ModelConfig
from cvqvae.losses import loss_terms, set_target_variance
from cvqvae.model import CrossVQVAE
from cvqvae.networks import Linear
from cvqvae.presets import PRESETS
from cvqvae.training import Trainer, TrainingConfig
from machine import this_machine
from torch.utils.data import DataLoader, TensorDataset

PLAIN = "plain loop, DataLoader"
WAYS = {
    "float32": {"cuda_graphs": False},
    "tf32": {"precision": "tf32", "cuda_graphs": False},
    "float32, recorded": {},
    "tf32, recorded": {"precision": "tf32"},
    "bfloat16, recorded": {"precision": "bfloat16"},
    "tf32, recorded, compiled": {"precision": "tf32", "compile": True},
    "bfloat16, recorded, compiled": {"precision": "bfloat16", "compile": True},
    "tf32, nothing side by side": {"precision": "tf32"},
    "tf32, rows not filled up": {"precision": "tf32"},
}


def without(way):
    "A context in which a recorded step lacks what its name says."
    stack = ExitStack()
    if way.endswith("nothing side by side"):
        for module in (cvqvae.model, cvqvae.losses):
            stack.enter_context(patch.object(module, "side_by_side", lambda calls, reads=(): [call() for call in calls]))
    if way.endswith("rows not filled up"):
        stack.enter_context(patch.object(Linear, "filled_up", torch.nn.Linear.forward))
    return stack


def plain_epochs(model, cells, training, device, workers):
    "Seconds and mean loss of each epoch of a loop as it is usually written."
    model = model.to(device).train()
    set_target_variance(model, [x.to(device) for x in cells.inputs])
    options = dict(shuffle=True, num_workers=workers, pin_memory=device.type == "cuda")
    loader = DataLoader(TensorDataset(*cells.inputs, cells.batch), training.batch_size, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    for _ in range(training.epochs):
        started, losses = time.perf_counter(), []
        for first, second, batch in loader:
            first, second, batch = (x.to(device, non_blocking=True) for x in (first, second, batch))
            optimizer.zero_grad()
            loss = loss_terms(model, model([first, second], batch), [first, second], batch)["loss"]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        yield time.perf_counter() - started, sum(losses) / len(losses)


def measured(way, config, training, cells, device, workers, short):
    "A row of the table: seconds of all epochs, of the first (which records and compiles) and of the others; the loss after `short` and all epochs."
    gc.collect()  # what the way before has recorded
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started, model = time.perf_counter(), CrossVQVAE(config)
    if way == PLAIN:
        seconds, losses = zip(*plain_epochs(model, cells, training, device, workers))
    else:
        with without(way):
            history = Trainer(model, cells, training, device=device).fit().history_frame()
        seconds, losses = history["seconds"].tolist(), history["train_loss"].tolist()
    row = {"way": way, "epochs": training.epochs, "seconds": time.perf_counter() - started, "first epoch": seconds[0]}
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
    early = min(short, len(losses))
    return row | {"epoch": pd.Series(seconds[1:]).median(), "early epoch": early, "early loss": losses[early - 1], "loss": losses[-1], "GPU GiB": peak}


def simulated(n_cells, n_components, n_batches, seed=0):
    "Components of 20 kinds of cells, seen in two ways."
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(20, 16, generator=generator)[torch.randint(20, (n_cells,), generator=generator)]
    views = [kinds @ torch.randn(16, n_components, generator=generator) for _ in range(2)]
    return CellData([view.add_(torch.randn(view.shape, generator=generator)) for view in views], torch.eye(n_batches)[torch.arange(n_cells) % n_batches])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="paper", choices=PRESETS)
    parser.add_argument("--cells", type=int, default=42_492)
    parser.add_argument("--components", type=int, default=2500)
    parser.add_argument("--batches", type=int, default=13)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--short", type=int, default=10, help="epochs of the ways that do without something")
    parser.add_argument("--workers", type=int, default=0, help="processes of the DataLoader")
    parser.add_argument("--ways", default=";".join([PLAIN, *WAYS]), help="separated by semicolons")
    parser.add_argument("--out", default="gpu.csv", help="file that the rows are added to; empty: none")
    a = parser.parse_args()
    device, cells = torch.device(a.device), simulated(a.cells, a.components, a.batches)
    config = ModelConfig((a.components, a.components), n_batches=a.batches, **PRESETS[a.preset].model)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else this_machine()["processor"]
    about = {"device": name, "torch": torch.__version__, "threads": chosen_threads(), "preset": a.preset, "cells": a.cells, "components": a.components}
    for way in a.ways.split(";"):
        epochs = a.epochs if "recorded" in way else min(a.short, a.epochs)
        training = TrainingConfig(**{**PRESETS[a.preset].training, "epochs": epochs, **WAYS.get(way, {})})
        row = about | measured(way, config, training, cells, device, a.workers, a.short)
        print(pd.Series(row).drop(list(about)).to_dict(), flush=True)
        if a.out:
            pd.DataFrame([row]).to_csv(a.out, mode="a", header=not Path(a.out).exists(), index=False)


if __name__ == "__main__":
    main()
