"""Translation of held-back cells by every predictor, for one data set and seed; rows are added to translation.csv.

    python translate_once.py snare-cortex --cells 1500 --seed 0 --peers multivi --seconds 200
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from machine import this_machine

from cvqvae.datasets import load_dataset
from cvqvae.translation_scores import translation_scores

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("dataset")
parser.add_argument("--cells", type=int, default=1500, help="at most so many, drawn at random (the same for every seed)")
parser.add_argument("--seed", type=int, default=0, help="of the split and of every training")
parser.add_argument("--peers", default="", help="totalvi, multivi: separated by commas")
parser.add_argument("--seconds", type=float, help="limit of each training of a peer")
told = parser.parse_args()

cells = load_dataset(told.dataset)
cells = cells[np.sort(np.random.default_rng(0).permutation(cells.n_obs)[: told.cells])].copy()
peers, started = [name for name in told.peers.split(",") if name], time.perf_counter()
scores = translation_scores(cells, batch_key="batch", seed=told.seed, peers=peers, max_seconds=told.seconds, device="cpu")
print(f"{told.dataset}, seed {told.seed}: {time.perf_counter() - started:.0f} s")
about = {"data": told.dataset, "cells": cells.n_obs, "seed": told.seed}
new = scores.assign(**about, **this_machine())

file, keys = Path(__file__).with_name("translation.csv"), ["data", "seed", "source", "target", "method", "metric"]
known = [pd.read_csv(file)] if file.exists() else []
table = pd.concat([*known, new]).drop_duplicates(keys, keep="last").sort_values(keys)
table[[*about, *scores, *this_machine()]].round(5).to_csv(file, index=False)
