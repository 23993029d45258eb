"""Score a training while it runs: one line per method, seed and stop, added to a CSV file.

    CVQVAE_DATA=folder OMP_NUM_THREADS=1 python time_to_quality.py --methods default,paper --seeds 0,1
    CVQVAE_DATA=folder OMP_NUM_THREADS=1 python time_to_quality.py --methods clue,multivi --seeds 0 --stops 60,150,400

Seconds are those of the processor (`time.process_time`), of the training alone: on one thread that is what an undisturbed clock would show. What is scored, and
how, is the same for every method. Peers stop at limits of wall time (`--stops`), each limit a training of its own.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import this_machine

from cvqvae.agreement import set_agreement
from cvqvae.baselines import COMMON, fit_method, only_components
from cvqvae.callbacks import Callback
from cvqvae.component_scale import set_component_scale
from cvqvae.datasets import read_pair
from cvqvae.ground_truth import Truth
from cvqvae.integration import CVQVAE
from cvqvae.metrics import score_embedding
from cvqvae.preprocessing import preprocess
from cvqvae.presets import PRESETS

EPOCHS = {"default": (1, 2, 3, 5, 10, 20, 40, 60), "paper": (5, 15, 40, 80, 140, 200)}


class ScoreAt(Callback):
    "Calls `score` with the stacked embedding after some epochs; its time does not count."

    order = 100

    def __init__(self, epochs, score):
        self.epochs, self.score, self.paused, self.begin = epochs, score, 0.0, time.process_time()

    def after_epoch(self, trainer):
        if trainer.epoch not in self.epochs:
            return
        now, state = time.process_time(), torch.get_rng_state()
        self.score(f"epoch {trainer.epoch}", now - self.begin - self.paused, stacked(trainer))
        torch.set_rng_state(state)
        self.paused += time.process_time() - now


@torch.no_grad()
def stacked(trainer):
    "The embedding that the paper scores, as if the training ended here: both modalities' latents of every cell, float32 [2n, d]."
    cells = trainer.train_data.inputs, trainer.train_data.batch
    set_agreement(trainer.model.eval(), *cells)
    set_component_scale(trainer.model, *cells)
    latents = trainer.model.embed_all(*cells)
    return np.vstack([latents[i].z.numpy() for i in range(len(cells[0]))])


def follow_own(preset, seed, cells, score):
    "Train a preset once and score it on the way."
    known = only_components(cells, PRESETS[preset].preprocessing.get("gene_scale", "std"))
    model = CVQVAE(known, preset=preset, batch_key="batch", seed=seed)
    model.fit(callbacks=[ScoreAt(EPOCHS[preset], score)], progress=False)


def follow_peer(method, seed, cells, score, stops):
    "Train a peer anew for every limit."
    for limit in stops:
        started = time.process_time()
        result = fit_method(method, cells, "batch", seed, max_seconds=limit)
        seconds = time.process_time() - started
        score(result.note, seconds, np.vstack([result.embeddings["first"], result.embeddings["second"]]))


def follow(method, seed, cells, truth, stops, out):
    "Every stop of one method and seed as a line of the file."
    def score(stop, seconds, z):
        found = score_embedding(z, truth, "stacked", resolutions=5, max_cells=5000).set_index("metric")["value"]
        scores = {name: round(float(found[name]), 4) for name in ("score", "biology", "batch")}
        row = {"method": method, "seed": seed, "stop": stop, "seconds": round(seconds, 2), **scores, **this_machine()}
        pd.DataFrame([row]).to_csv(out, mode="a", header=not out.exists(), index=False)
        print(method, seed, stop, f"{seconds:.1f} s", scores, flush=True)

    follow_own(method, seed, cells, score) if method in EPOCHS else follow_peer(method, seed, cells, score, stops)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="default,paper")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--stops", default="100,400", help="limits of a peer's training, in seconds")
    parser.add_argument("--cells", default="snare-cortex", help="a folder in CVQVAE_DATA with rna.h5ad and atac.h5ad")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("time_to_quality.csv"))
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(os.environ["CVQVAE_DATA"]) / flags.cells
    cells = read_pair(folder / "rna.h5ad", folder / "atac.h5ad")
    preprocess(cells, batch_key="batch", **COMMON)
    truth = Truth.from_mudata(cells, "batch", "cell_type")
    for seed in map(int, flags.seeds.split(",")):
        for method in flags.methods.split(","):
            follow(method, seed, cells, truth, [float(s) for s in flags.stops.split(",")], flags.out)


if __name__ == "__main__":
    main()
