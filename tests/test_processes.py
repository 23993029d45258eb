"""Several processes train what one process trains."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from cvqvae.callbacks import Callback, SingleBatch
from cvqvae.checkpoints import Checkpoint
from cvqvae.checks import DataError
from cvqvae.devices import devices_for, train
from cvqvae.integration import CVQVAE
from cvqvae.processes import n_processes
from cvqvae.simulation import simulate

POSSIBLE = dist.is_available() and dist.is_gloo_available() and (os.cpu_count() or 1) > 1
pytestmark = pytest.mark.skipif(not POSSIBLE, reason="two processes need gloo and two cores")

# What sums of floats in another order may change, relative to the largest entry of a tensor. Measured: 2e-7 (default) and 2e-6 (paper).
TOLERANCE = 2e-5

# The presets on networks of a size for tests; dropout is added to the default's, because its mask is part of the promise.
SMALL = {
    "default": {"hidden": (24,), "decoder_hidden": (16,), "n_latent": 6, "n_codes": 24, "epochs": 2, "dropout": 0.1, "input_dropout": 0.1, "revive_below": 0.3},
    "paper": {"hidden": (32, 24, 16), "n_latent": 6, "n_codes": 24, "epochs": 2, "learning_rate": 1e-3},
}


def model_of(preset, **changes):
    "A model of 211 cells: batches of 64, the last with 19, so that parts differ in size."
    cells = simulate(n_cells=211, n_genes=200, n_peaks=400, seed=0)
    return CVQVAE(cells, preset, batch_key="batch", device="cpu", n_components=10, batch_size=64, **(SMALL[preset] | changes))


def fitted(preset, processes=1, epochs=None, checkpoint=None, **changes):
    "The same, trained."
    return model_of(preset, **changes).fit(epochs, progress=False, processes=processes, checkpoint=checkpoint)


def undetermined(name, model):
    "A bias in front of a batch norm: its gradient is rounding errors, which Adam blows up, and the norm takes it away again."
    return model.config.norm == "batch" and (name.endswith("0.bias") and ".layers." in name or name.endswith("running_mean"))


def differences(model, weights):
    "Largest difference of each tensor of a model from others, relative to its largest entry."
    pairs = {name: (a.double(), weights[name].double()) for name, a in model.module.state_dict().items() if not undetermined(name, model)}
    return {name: ((a - b).abs().max() / a.abs().max().clamp(min=1e-6)).item() for name, (a, b) in pairs.items()}


def assert_alike(model, weights):
    found = differences(model, weights)
    assert sum("codebook" in name for name in found) >= 1 and len(found) > 20
    assert max(found.values()) < TOLERANCE, {name: value for name, value in found.items() if value >= TOLERANCE}


PROGRAM = textwrap.dedent("""
    import hashlib, json, sys
    import torch, torch.distributed as dist
    sys.path.insert(0, sys.argv[1])
    from test_processes import SMALL, model_of
    from cvqvae.callbacks import Callback
    from safetensors.torch import save_file

    number, folder = int(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)

    class Fingerprint(Callback):
        "A hash of all weights and codebooks after each epoch, in each process."
        everywhere, order = True, 50
        def __init__(self): self.found = []
        def after_epoch(self, trainer):
            state = [value.numpy().tobytes() for value in trainer.model.state_dict().values()]
            self.found.append(hashlib.sha256(b"".join(state)).hexdigest())

    hashes = {}
    for preset in SMALL:
        fingerprint = Fingerprint()
        model = model_of(preset).fit(progress=False, callbacks=[fingerprint], checkpoint=f"{folder}/{preset}-{number}.safetensors")
        hashes[preset] = fingerprint.found
        if number == 0:
            save_file({name: value.contiguous() for name, value in model.module.state_dict().items()}, f"{folder}/{preset}-weights.safetensors")
    with open(f"{folder}/{number}.json", "w") as file:
        json.dump(hashes, file)
    dist.destroy_process_group()
""")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    "A folder with what two processes, started from outside, left behind."
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]
    running = [subprocess.Popen([*command, str(number), str(folder)], stderr=subprocess.PIPE, text=True) for number in range(2)]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return folder


def test_weights_and_codebooks_are_the_same_in_every_process(two):
    first, second = (json.loads((two / f"{number}.json").read_text()) for number in range(2))
    assert first == second
    assert all(len(set(hashes)) == 2 for hashes in first.values()), "each epoch changes something"


@pytest.mark.parametrize("preset", SMALL)
def test_two_processes_are_one_with_the_whole_batch(two, preset):
    assert_alike(fitted(preset), load_file(two / f"{preset}-weights.safetensors"))


def test_the_first_process_alone_writes(two):
    kept = sorted(path.name for path in two.glob("*-[01].safetensors"))
    assert kept == ["default-0.safetensors", "paper-0.safetensors"]


def test_fit_starts_processes_and_resumes_where_one_process_stopped(tmp_path):
    class Kill(Callback):
        order = 90

        def after_epoch(self, trainer):
            if trainer.epoch == 2:
                raise KeyboardInterrupt

    model = model_of("default", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(progress=False, callbacks=[Checkpoint(tmp_path / "kept.safetensors", every=2), Kill()])
    resumed = model.fit(progress=False, processes=2, checkpoint=tmp_path / "kept.safetensors")
    whole = fitted("default", epochs=3)
    assert_alike(whole, resumed.module.state_dict())
    columns = [name for name in whole.history if name.startswith(("train_", "codes_used", "perplexity"))]
    np.testing.assert_allclose(whole.history[columns], resumed.history[columns], rtol=TOLERANCE)
    assert n_processes() == 1 and not dist.is_initialized()


def test_a_stop_within_an_epoch_ends_all_processes():
    model, threads = model_of("paper"), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="at the end of an epoch only"):
        model.fit(progress=False, callbacks=[SingleBatch()], processes=2)
    assert not dist.is_initialized() and torch.get_num_threads() == threads
    assert psutil.STATUS_ZOMBIE not in [process.status() for process in psutil.Process().children()]


@pytest.mark.parametrize("processes", [0, -1, True, 2.0, 10_000])
def test_a_number_of_processes_that_cannot_be(processes):
    with pytest.raises(DataError, match="processes="):
        devices_for(processes, "cpu")
    with pytest.raises(DataError, match="processes="):
        train(None, None, None, processes=processes, device="cpu")
