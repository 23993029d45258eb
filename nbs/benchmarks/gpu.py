"""The paper's training on one device, next to a plain loop with a DataLoader: the same model, loss and optimiser. A measurement, not a test.

On a GPU: `python gpu.py` (200 epochs of 42,492 cells x 2,500 components, a few minutes); anywhere: `python gpu.py --device cpu --cells 2000
--components 50 --epochs 2`. Rows are added to a CSV file that names the device.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from cvqvae.batches import CellData, chosen_threads
from cvqvae.configuration import ModelConfig
from cvqvae.losses import loss_terms, set_target_variance
from cvqvae.model import CrossVQVAE
from cvqvae.training import Trainer, TrainingConfig
from machine import this_machine
from torch.utils.data import DataLoader, TensorDataset

PLAIN = "plain loop, DataLoader"
WAYS = {
    "float32": {},
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "float32, compiled": {"compile": True},
    "tf32, compiled": {"precision": "tf32", "compile": True},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}


def plain_epochs(model, cells, epochs, device, workers):
    "Seconds and mean loss of each epoch of a loop as it is usually written."
    model = model.to(device).train()
    set_target_variance(model, [x.to(device) for x in cells.inputs])
    loader = DataLoader(TensorDataset(*cells.inputs, cells.batch), 1024, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(epochs):
        started, losses = time.perf_counter(), []
        for first, second, batch in loader:
            first, second, batch = (x.to(device, non_blocking=True) for x in (first, second, batch))
            optimizer.zero_grad()
            loss = loss_terms(model, model([first, second], batch), [first, second], batch)["loss"]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        yield time.perf_counter() - started, sum(losses) / len(losses)


def measured(way, config, cells, a, device):
    "A row of the table: seconds of all epochs as they ran, of the first (which compiles), and the final loss."
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started, model = time.perf_counter(), CrossVQVAE(config)
    if way == PLAIN:
        seconds, losses = zip(*plain_epochs(model, cells, a.epochs, device, a.workers))
    else:
        history = Trainer(model, cells, TrainingConfig(epochs=a.epochs, **WAYS[way]), device=device).fit().history_frame()
        seconds, losses = history["seconds"], history["train_loss"]
    row = {"seconds": time.perf_counter() - started, "first epoch": seconds[0], "epoch": pd.Series(seconds[1:]).median()}
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
    return {"way": way, **row, "loss": list(losses)[-1], "GPU GiB": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cells", type=int, default=42_492)
    parser.add_argument("--components", type=int, default=2500)
    parser.add_argument("--batches", type=int, default=13)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=0, help="processes of the DataLoader")
    parser.add_argument("--ways", default=";".join([PLAIN, *WAYS]), help="separated by semicolons")
    parser.add_argument("--out", default="gpu.csv", help="file that the rows are added to; empty: none")
    a = parser.parse_args()
    device = torch.device(a.device)
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(20, 16, generator=generator)[torch.randint(20, (a.cells,), generator=generator)]
    views = [kinds @ torch.randn(16, a.components, generator=generator) for _ in range(2)]
    inputs = [view.add_(torch.randn(view.shape, generator=generator)) for view in views]
    cells = CellData(inputs, torch.eye(a.batches)[torch.arange(a.cells) % a.batches])
    config = ModelConfig((a.components, a.components), n_batches=a.batches)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else this_machine()["processor"]
    about = {"device": name, "torch": torch.__version__, "threads": chosen_threads(), "cells": a.cells, "components": a.components, "epochs": a.epochs}
    for way in a.ways.split(";"):
        row = about | measured(way, config, cells, a, device)
        print(pd.Series(row).drop(list(about)).to_dict(), flush=True)
        if a.out:
            pd.DataFrame([row]).to_csv(a.out, mode="a", header=not Path(a.out).exists(), index=False)


if __name__ == "__main__":
    main()
