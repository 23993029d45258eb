"""Several processes train what one process trains."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.distributed as dist

from cvqvae.callbacks import Callback, SingleBatch
from cvqvae.checks import DataError
from cvqvae.devices import devices_for, train
from cvqvae.integration import CVQVAE
from cvqvae.processes import n_processes
from cvqvae.simulation import simulate

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available() or (os.cpu_count() or 1) < 2, reason="two processes need gloo and two cores")

# Sums of floats in another order: what differs between one process and two. Measured: see the assertions.
TOLERANCE = 1e-4

# The preset as it is, dropout and all, on networks of a size for tests.
SMALL = {
    "default": {"hidden": (24,), "decoder_hidden": (16,), "n_latent": 6, "n_codes": 24, "batch_size": 64, "epochs": 3, "dropout": 0.1, "input_dropout": 0.1, "revive_below": 0.3},
    "paper": {"hidden": (32, 24, 16), "n_latent": 6, "n_codes": 24, "batch_size": 64, "epochs": 3, "learning_rate": 1e-3},
}


def fitted(preset, processes, epochs=None, **changes):
    "A model of 211 cells: batches of 64, the last one with 19, so that parts differ in size."
    cells = simulate(n_cells=211, n_genes=200, n_peaks=400, seed=0)
    model = CVQVAE(cells, preset, batch_key="batch", device="cpu", n_components=10, **(SMALL[preset] | changes))
    model.fit(epochs, progress=False, processes=processes)
    return model


def undetermined(name, model):
    "A bias in front of a batch norm has a gradient of rounding errors only, which Adam blows up; the norm takes it away again."
    return model.config.norm == "batch" and (name.endswith("0.bias") and ".layers." in name or name.endswith("running_mean"))


def differences(one, two):
    "Largest relative difference of each tensor of two models."
    pairs = zip(one.module.state_dict().items(), two.module.state_dict().values())
    kept = {name: (a.double(), b.double()) for (name, a), b in pairs if not undetermined(name, one)}
    return {name: ((a - b).abs().max() / a.abs().max().clamp(min=1e-6)).item() for name, (a, b) in kept.items()}


@pytest.mark.parametrize("preset", SMALL)
def test_two_processes_are_one_with_the_whole_batch(preset):
    one, two = fitted(preset, 1), fitted(preset, 2)
    found = differences(one, two)
    assert any("codebook" in name for name in found) and len(found) > 10
    print(preset, max(found.values()))
    assert max(found.values()) < TOLERANCE, {name: value for name, value in found.items() if value >= TOLERANCE}
    columns = [name for name in one.history if name.startswith(("train_", "codes_used", "perplexity"))]
    np.testing.assert_allclose(one.history[columns], two.history[columns], rtol=TOLERANCE)
    assert n_processes() == 1 and not dist.is_initialized()
