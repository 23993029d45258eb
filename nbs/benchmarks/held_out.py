"""Scores of cells that a model has not seen: one row per data set, preset, seed and measure, added to a CSV file.

    CVQVAE_DATA=folder OMP_NUM_THREADS=1 python held_out.py --datasets snare-cortex --presets default,paper --seeds 0,1

A fifth of the cells is kept back at random, and embedded by the model of the others.
"""

import argparse
import time
import warnings
from pathlib import Path

import pandas as pd

from cvqvae.datasets import load_dataset
from cvqvae.held_out import held_out_scores

METHODS = {"default": "cvqvae", "paper": "cvqvae-paper"}  # preset -> what tables call it


def cells_of(name):
    "A data set whose cells of unknown type have no label, and its batch column if it has more than one batch."
    mdata = load_dataset(name)
    labels = mdata.obs["cell_type"].astype(object)
    mdata.obs["cell_type"] = pd.Categorical(labels.where(labels != "unknown"))
    return mdata, "batch" if mdata.obs["batch"].nunique() > 1 else None


def measured(name, preset, seed):
    "The scores of one model's unseen cells; those of `raw`, `random` and `cca` come with the preset `default`."
    mdata, batch_key = cells_of(name)
    started = time.process_time()
    scores = held_out_scores(mdata, batch_key=batch_key, labels_key="cell_type", seed=seed, preset=preset, evaluation={"resolutions": 10})
    scores["method"] = scores["method"].replace("cvqvae", METHODS[preset])
    kept = scores if preset == "default" else scores[scores["method"] == METHODS[preset]]
    print(name, preset, seed, f"{time.process_time() - started:.0f} s", flush=True)
    return kept.assign(dataset=name, seed=seed)[["dataset", "method", "seed", "view", "metric", "group", "value"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", default="bmmc-cite-starter,snare-cortex,pbmc10k-cite")
    parser.add_argument("--presets", default="default,paper")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("held_out.csv"))
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    for seed in map(int, flags.seeds.split(",")):
        for name in flags.datasets.split(","):
            for preset in flags.presets.split(","):
                measured(name, preset, seed).round(4).to_csv(flags.out, mode="a", header=not flags.out.exists(), index=False)


if __name__ == "__main__":
    main()
