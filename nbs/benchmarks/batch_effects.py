"""Scores of cells between whose batches a difference of known strength was put: one row per data set, strength, method, seed and measure, added to a CSV file.

    CVQVAE_DATA=folder OMP_NUM_THREADS=1 python batch_effects.py --strengths 0,.5,1,1.5 --seeds 0,1

In every batch but the first, each feature loses counts at random: it keeps the share exp(-strength * |normal|), drawn per batch and feature. What a cell is
stays as it was measured. Data sets of one batch are cut into two at random. `harmony` is harmonypy's, and so
was the iLISI (Korsunsky et al. 2019, Nat Methods) of the rows that are kept; the package's own agrees with it to 1e-6.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cvqvae.baselines import fit_method
from cvqvae.datasets import load_dataset
from cvqvae.ground_truth import Truth
from cvqvae.metrics import score_view

METHODS = ("raw", "cca", "harmony", "cvqvae-paper", "cvqvae", "cvqvae, batches unknown")


def cells_of(name, strength, seed, max_cells):
    "A data set of at most `max_cells` cells, `obs['batch']` and the difference of that strength between batches."
    rng = np.random.default_rng(seed)
    mdata = load_dataset(name)
    if mdata.n_obs > max_cells:
        mdata = mdata[np.sort(rng.choice(mdata.n_obs, max_cells, replace=False))].copy()
    if mdata.obs["batch"].nunique() < 2:
        mdata.obs["batch"] = rng.integers(2, size=mdata.n_obs).astype(str)
    codes, batches = pd.factorize(mdata.obs["batch"], sort=True)
    for adata in mdata.mod.values():
        kept = np.exp(-strength * np.abs(rng.standard_normal((len(batches), adata.n_vars))))
        kept[0] = 1
        adata.X = thinned(sp.csr_matrix(adata.X), kept[codes], rng)
    return mdata


def thinned(counts, kept, rng):
    "Counts of which each is kept with its own probability, `kept` [cells, features]; float32 CSR."
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    drawn = rng.binomial(counts.data.astype(int), kept[rows, counts.indices])
    result = sp.csr_matrix((drawn.astype("float32"), counts.indices, counts.indptr), counts.shape)
    result.eliminate_zeros()
    return result


def measured(name, strength, seed, max_cells, methods=METHODS):
    "The long table of scores of every method on the same cells."
    mdata = cells_of(name, strength, seed, max_cells)
    rows = []
    for label in methods:
        method, *unknown = label.split(", ")
        result = fit_method(method, mdata, batch_key=None if unknown else "batch", seed=seed)
        truth = Truth.from_mudata(mdata, "batch", "cell_type", ignore_labels=("unknown",))
        for view in ("joint", "stacked"):
            scores = score_view(result.embeddings, truth, view, seed=seed, clustering="leiden", resolutions=10)
            rows.append(scores.dropna(subset="value").assign(method=label, view=view))
    return pd.concat(rows).assign(dataset=name, strength=strength, seed=seed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", default="bmmc-cite-starter,snare-cortex,pbmc10k-cite")
    parser.add_argument("--strengths", default="0,.5,1,1.5")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="in quotation marks where there are spaces")
    parser.add_argument("--max_cells", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("batch_effects.csv"))
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    columns = ["dataset", "strength", "method", "seed", "view", "metric", "group", "value"]
    for seed in map(int, flags.seeds.split(",")):
        for name in flags.datasets.split(","):
            for strength in map(float, flags.strengths.split(",")):
                started = time.process_time()
                scores = measured(name, strength, seed, flags.max_cells, flags.methods)[columns].round(4)
                scores.to_csv(flags.out, mode="a", header=not flags.out.exists(), index=False)
                print(name, strength, seed, f"{time.process_time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
