"""Numbers: a loss that breaks stops with its place and cause, the same run gives the same bits, and a lost device costs no checkpoint."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_cells import SMALL, cells

from cvqvae.callbacks import Callback, DivergedError
from cvqvae.integration import CVQVAE

pytestmark = pytest.mark.filterwarnings("ignore")
LIKELY = {**SMALL, "epochs": 12}


def embedding(callbacks=(), checkpoint=None, **options):
    model = CVQVAE(cells(), batch_key="batch", **{**LIKELY, **options})
    return model.fit(progress=False, callbacks=callbacks, checkpoint=checkpoint).latents()["joint"].z.numpy()


def test_a_loss_that_explodes_names_epoch_batch_and_cause():
    with pytest.raises(DivergedError, match=r"epoch \d+, batch \d+.*learning_rate"):
        embedding(learning_rate=1e30, schedule="constant")


def test_the_same_run_twice_gives_the_same_bits():
    assert np.array_equal(embedding(), embedding())


def test_two_processes_give_the_same_bits(tmp_path):
    program = f"""
import sys; sys.path.insert(0, sys.argv[1])
import numpy, torch; from test_numbers import embedding
torch.set_num_threads({torch.get_num_threads()})  # numba, in tests before this one, may have changed the number in this process
numpy.save(sys.argv[2], embedding())
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(Path(__file__).parent), str(tmp_path / "other.npy")], check=True)
    assert np.array_equal(np.load(tmp_path / "other.npy"), embedding())


class LoseDevice(Callback):
    "Fails as PyTorch does when a GPU falls off the bus."

    def __init__(self, epoch):
        self.epoch = epoch

    def after_batch(self, trainer):
        if trainer.epoch == self.epoch:
            raise torch.cuda.OutOfMemoryError("CUDA error: device lost")


def test_a_lost_device_keeps_the_checkpoint_and_the_same_call_goes_on(tmp_path):
    with pytest.raises(RuntimeError, match="device lost"):
        embedding([LoseDevice(11)], tmp_path / "fit.safetensors")
    assert (tmp_path / "fit.safetensors").exists()
    assert np.array_equal(embedding(checkpoint=tmp_path / "fit.safetensors"), embedding())


def test_the_same_cells_in_other_formats_of_number_give_the_same_bits():
    mdata = cells()
    for adata in mdata.mod.values():
        adata.X = adata.X.astype("float64")
    assert np.array_equal(CVQVAE(mdata, batch_key="batch", **LIKELY).fit(progress=False).latents()["joint"].z.numpy(), embedding())
