"""On an NVIDIA GPU: the same results as on the CPU, repeatable, resumable, in every precision and with recorded steps. Skipped where there is none."""

import warnings

import numpy as np
import pytest
import torch

import cvqvae.losses
import cvqvae.model
from cvqvae.batches import CellData
from cvqvae.callbacks import Callback
from cvqvae.checkpoints import Checkpoint, ResumeFrom
from cvqvae.configuration import ModelConfig
from cvqvae.integration import CVQVAE
from cvqvae.model import CrossVQVAE
from cvqvae.networks import Linear
from cvqvae.presets import PRESETS
from cvqvae.simulation import simulate
from cvqvae.training import Trainer, TrainingConfig

pytestmark = [pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"), pytest.mark.filterwarnings("ignore")]


SMALL = dict(hidden=(16,), n_latent=4, n_codes=8, n_components=6, batch_size=32, epochs=2)


def toy(n=1000, k=20):
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(n, 5, generator=generator)
    inputs = [shared @ torch.randn(5, k, generator=generator) + 0.3 * torch.randn(n, k, generator=generator) for _ in range(2)]
    return CellData(inputs, torch.eye(3)[torch.arange(n) % 3])


def trained(device="cuda", callbacks=(), preset="paper", epochs=4, batch_size=256, **training):
    size = {"hidden": (64, 32), "n_codes": 64} if preset == "paper" else {}
    config = ModelConfig((20, 20), n_batches=3, **{**PRESETS[preset].model, **size})
    options = {**PRESETS[preset].training, "epochs": epochs, "batch_size": batch_size, **training}
    return Trainer(CrossVQVAE(config), toy(), TrainingConfig(**options), callbacks, device).fit()


def losses(**options):
    return trained(**options).history_frame()["train_loss"].to_numpy()


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_a_gpu_trains_as_the_cpu_does(preset):
    assert losses(preset=preset) == pytest.approx(losses(device="cpu", preset=preset), rel=2e-2 if preset == "default" else 1e-3)


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_the_same_run_twice_gives_the_same_bits(preset):
    a, b = (trained(preset=preset).model.state_dict() for _ in range(2))
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_a_recorded_step_computes_what_the_written_one_does(preset):
    recorded, written = trained(preset=preset, gradient_clip=1.0), trained(preset=preset, gradient_clip=1.0, cuda_graphs=False)
    assert len(recorded.update.recordings) == 2  # full batches and the last one
    a, b = recorded.model.state_dict(), written.model.state_dict()
    assert [name for name in a if not torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-5)] == []
    gradients = [[p.grad for p in t.model.parameters() if p.grad is not None] for t in (recorded, written)]
    assert all(torch.allclose(x, y, rtol=1e-2, atol=1e-5) for x, y in zip(*gradients, strict=True))


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_what_runs_side_by_side_computes_what_runs_in_order(preset, monkeypatch):
    apart = trained(preset=preset).model.state_dict()
    for module in (cvqvae.model, cvqvae.losses):
        monkeypatch.setattr(module, "side_by_side", lambda calls, reads=(): [call() for call in calls])
    ordered = trained(preset=preset).model.state_dict()
    assert [name for name in ordered if not torch.equal(apart[name], ordered[name])] == []


def test_wide_rows_are_filled_up_to_the_same_product():
    layer, rows = Linear(2513, 64).cuda(), torch.randn(128, 2513, device="cuda")
    plain = torch.nn.functional.linear(rows, layer.weight, layer.bias)
    assert torch.allclose(layer(rows), plain, rtol=1e-4, atol=1e-4)


def test_cells_that_lack_a_modality_are_recorded_too():
    cells = toy()
    halves = CellData([None, cells.inputs[1][700:]], cells.batch[700:])
    ends = []
    for recorded in (True, False):
        config = ModelConfig((20, 20), n_batches=3, **PRESETS["default"].model)
        training = TrainingConfig(**{**PRESETS["default"].training, "epochs": 6, "cuda_graphs": recorded})
        trainer = Trainer(CrossVQVAE(config), cells.rows(slice(0, 700)), training, device="cuda", others=[halves]).fit()
        ends.append(trainer.history_frame()["train_loss"].iloc[-1])
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)


@pytest.mark.parametrize("preset", ["paper", "default"])
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_rounded_products_train_alike(preset, precision):
    assert losses(preset=preset, precision=precision) == pytest.approx(losses(preset=preset), rel=5e-2)


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_a_compiled_run_trains_alike(preset):
    compiled = trained(preset=preset, compile=True)
    assert compiled.history_frame()["train_loss"].to_numpy() == pytest.approx(losses(preset=preset), rel=5e-2)
    assert compiled.history_frame()["codes_used_1"].min() > 1


class Stop(Callback):
    def after_epoch(self, trainer):
        if trainer.epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("compiled", [False, True])
def test_a_stopped_run_resumes_to_the_same_weights(tmp_path, compiled):
    path, options = tmp_path / "run.safetensors", {"preset": "default", "compile": compiled}
    with pytest.raises(KeyboardInterrupt):
        trained(callbacks=(Checkpoint(path, every=1), Stop()), **options)
    a, b = trained(callbacks=(ResumeFrom(path),), **options).model.state_dict(), trained(**options).model.state_dict()
    assert all(torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-5) for name in a)


class Watch(Callback):
    "Lets PyTorch warn of everything that waits for the GPU, from the first step of an epoch to its end."

    order = -100

    def after_batch(self, trainer):
        torch.cuda.set_sync_debug_mode("warn")

    def after_epoch(self, trainer):
        torch.cuda.set_sync_debug_mode("default")


def test_no_step_waits_for_the_gpu():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(preset="default", callbacks=(Watch(),), epochs=3, batch_size=64)
    waits = [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    assert len(waits) < 15, waits  # 16 steps an epoch; its mean losses are read back at its end


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_no_step_keeps_the_graph_of_another(preset):
    torch.set_warn_always(True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = trained(preset=preset)
    torch.set_warn_always(False)
    assert [str(w.message) for w in caught if "AccumulateGrad" in str(w.message)] == []
    assert not any(x.requires_grad for x in trainer.output.reconstructions.values())


def test_a_model_from_a_gpu_serves_on_the_cpu(tmp_path):
    cells = simulate(n_cells=120, n_genes=150, n_peaks=200)
    here = CVQVAE(cells, batch_key="batch", **SMALL, device="cuda").fit(progress=False)
    here.save(tmp_path / "model")
    there = CVQVAE.load(tmp_path / "model", device="cpu")
    a, b = here.latents()["joint"].z.cpu().numpy(), there.latents(cells)["joint"].z.numpy()
    assert np.allclose(a, b, atol=1e-3 * np.abs(a).max())


def test_translation_on_a_gpu_is_that_of_the_cpu(tmp_path):
    cells = simulate(n_cells=120, n_genes=150, n_peaks=200)
    CVQVAE(cells, batch_key="batch", **SMALL, device="cuda").fit(progress=False).save(tmp_path / "model")
    on_gpu, on_cpu = (CVQVAE.load(tmp_path / "model", device=device).translate(cells["rna"], to="atac").X for device in ("cuda", "cpu"))
    assert np.allclose(on_gpu, on_cpu, atol=1e-3 * np.abs(on_cpu).max())
