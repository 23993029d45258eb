"""The loop: repeatable, resumable after a kill, quiet, and loud when the loss breaks."""

import gc
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_limits

from cvqvae.batches import CellData, batches_of, epoch_generator, shares_of, split_rows
from cvqvae.callbacks import Callback, CodeHealth, DivergedError, EarlyStopping, Progress, StopTraining
from cvqvae.checks import DataError
from cvqvae.checkpoints import Checkpoint, ResumeFrom
from cvqvae.configuration import ModelConfig
from cvqvae.model import CrossVQVAE
from cvqvae.training import Trainer, TrainingConfig

PROGRAM = textwrap.dedent("""
    import sys, torch
    from safetensors.torch import save_file
    from cvqvae.batches import CellData
    from cvqvae.checkpoints import Checkpoint, ResumeFrom
    from cvqvae.configuration import ModelConfig
    from cvqvae.model import CrossVQVAE
    from cvqvae.training import Trainer, TrainingConfig

    checkpoint, result = sys.argv[1:]
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    cells = CellData([torch.randn(512, 8, generator=generator) for _ in range(2)])
    model = CrossVQVAE(ModelConfig((8, 8), hidden=(32,), n_codes=16, dropout=0.3, revive_below=0.1))
    config = TrainingConfig(epochs=60, batch_size=32, validation_fraction=0.1, patience=50)
    print("ready", flush=True)
    Trainer(model, cells, config, (ResumeFrom(checkpoint), Checkpoint(checkpoint, every=2)), "cpu").fit()
    save_file(model.state_dict(), result)
""")


def toy(n=200, k=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, 3, generator=generator)
    return CellData([shared @ torch.randn(3, k, generator=generator) for _ in range(2)])


def trained(config=None, callbacks=(), **changes):
    model = CrossVQVAE(ModelConfig((6, 6), **{"hidden": (16,), "n_latent": 4, "n_codes": 16, **changes}))
    return Trainer(model, toy(), config or TrainingConfig(epochs=3, batch_size=64), callbacks, "cpu").fit()


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(DataError, match="is a folder: name the file"):
        trained(callbacks=(ResumeFrom(tmp_path),))


def test_what_a_step_leaves_to_callbacks_holds_no_graph():
    output = trained().output
    values = [*output.reconstructions.values(), *(x for latent in output.latents.values() for x in latent if x is not None)]
    assert len(values) > 4 and not any(x.requires_grad for x in values)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    from safetensors.torch import load_file

    def start(name):
        arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / f"{name}.ckpt"), str(tmp_path / f"{name}.out")]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE)

    whole, killed = start("whole"), start("killed")
    killed.stdout.readline()
    deadline = time.time() + 60
    while not (tmp_path / "killed.ckpt").exists() and time.time() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed.out").exists(), "the run ended before it could be killed"
    assert start("killed").wait() == 0 and whole.wait() == 0
    a, b = load_file(tmp_path / "whole.out"), load_file(tmp_path / "killed.out")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_checkpoint_of_other_cells_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    trained(callbacks=(Checkpoint(path),))
    model = CrossVQVAE(ModelConfig((6, 6), hidden=(16,), n_latent=4, n_codes=16))
    with pytest.raises(ValueError, match="other cells"):
        Trainer(model, toy(n=100), TrainingConfig(epochs=3, batch_size=64), (ResumeFrom(path),), "cpu").fit()


def test_the_checkpoint_of_another_training_says_in_what_it_differs(tmp_path):
    path = tmp_path / "run.safetensors"
    trained(callbacks=(Checkpoint(path),))
    with pytest.raises(DataError, match=r"other cells \(epochs is 3 there and 5 here, decay is 0.99 there and 0.9 here\): use its settings"):
        trained(TrainingConfig(epochs=5, batch_size=64), (ResumeFrom(path),), decay=0.9)
    with pytest.raises(DataError, match=r"(\w+ is \d+ there and \d+ here, ){3}\.\.\.\)"):
        trained(TrainingConfig(epochs=4, batch_size=32, seed=3), (ResumeFrom(path),), n_latent=5, decay=0.9)
    other = toy()
    other.inputs[0][:] = other.inputs[0].flip(0)
    with pytest.raises(DataError, match="or other cells: use its settings"):
        model = CrossVQVAE(ModelConfig((6, 6), hidden=(16,), n_latent=4, n_codes=16))
        Trainer(model, other, TrainingConfig(epochs=3, batch_size=64), (ResumeFrom(path),), "cpu").fit()


@pytest.mark.parametrize("given, told", [
    (EarlyStopping(3), "must be a list of callbacks"), (None, "must be a list of callbacks"),
    ([EarlyStopping], r"a class: make one of it, EarlyStopping\("), ([CodeHealth(), print], "no cvqvae.callbacks.Callback: subclass that"),
])  # fmt: skip
def test_what_is_no_callback_is_refused(given, told):
    with pytest.raises(TypeError, match=told):
        trained(callbacks=given)


@pytest.mark.parametrize("every", [0, -1, 2.5, True])
def test_a_checkpoint_is_written_every_so_many_epochs(every):
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoint("run.safetensors", every)


def test_training_is_repeatable_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    a, b = trained(dropout=0.2).model.state_dict(), trained(dropout=0.2).model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(state, torch.get_rng_state())


def test_generators_of_devices_that_are_not_used_are_left_alone(monkeypatch):
    seeded = []
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, seeded.append)
    trained(dropout=0.2)
    assert not seeded


def test_held_out_cells_are_looked_at_in_batches_and_counted_alike():
    sizes = []

    class Look(Callback):
        def before_fit(self, trainer):
            trainer.model.register_forward_pre_hook(lambda model, inputs: sizes.append(len(inputs[0][0])) if not model.training else None)

    trainer = trained(TrainingConfig(epochs=1, batch_size=32, validation_fraction=0.35), (Look(),))
    assert sizes == [32, 32, 6]
    whole = trainer.compute_terms(trainer.val_data)
    assert trainer.history[0]["val_reconstruction_2"] == pytest.approx(whole["reconstruction_2"].item(), rel=1e-5)


def test_loss_falls_for_every_schedule_and_precision():
    for schedule in ("cosine", "one-cycle", "constant"):
        for precision in ("float32", "bfloat16"):
            config = TrainingConfig(epochs=15, batch_size=64, learning_rate=5e-3, schedule=schedule, precision=precision)
            losses = trained(config).history_frame().train_loss
            assert losses.iloc[-1] < 0.9 * losses.iloc[0], (schedule, precision)


def test_early_stopping_restores_the_best_weights():
    config = TrainingConfig(epochs=200, batch_size=64, learning_rate=1e-2, validation_fraction=0.2, patience=4)
    trainer = trained(config)
    stopping = next(c for c in trainer.callbacks if isinstance(c, EarlyStopping))
    assert len(trainer.history) < 200
    assert abs(trainer.validate()["val_loss"] - stopping.best) < 1e-5


def test_the_epoch_that_a_callback_stops_at_is_seen_by_all_others(tmp_path):
    class Stop(Callback):
        def after_epoch(self, trainer):
            if trainer.epoch == 2:
                raise StopTraining

    config = TrainingConfig(epochs=9, batch_size=64, learning_rate=1e-2, patience=5)
    trainer = trained(config, (Stop(), Checkpoint(tmp_path / "run.safetensors", every=2)))
    stopping = next(c for c in trainer.callbacks if isinstance(c, EarlyStopping))
    assert len(trainer.history) == 2 and trainer.history[1]["train_loss"] < trainer.history[0]["train_loss"]
    assert stopping.best_epoch == 2 and not (tmp_path / "run.safetensors").exists()  # from there a second run would go on


def test_early_stopping_that_is_used_again_keeps_nothing_of_the_first_training():
    stopping, config = EarlyStopping(20), TrainingConfig(epochs=3, batch_size=64)
    stopping.best, stopping.mark, stopping.best_epoch = 0.01, 0.01, -30
    stopping.weights = {name: torch.full_like(value, 7) for name, value in trained(config).model.state_dict().items()}
    again, fresh = (trained(config, [callback]) for callback in (stopping, EarlyStopping(20)))
    a, b = again.model.state_dict(), fresh.model.state_dict()
    assert len(again.history) == 3 and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("moment, epochs", [("before_fit", 0), ("after_epoch", 1), ("after_fit", 3)])
def test_a_callback_may_stop_the_training_at_any_moment(moment, epochs):
    class Stop(Callback):
        pass

    def stop(self, trainer):
        raise StopTraining

    setattr(Stop, moment, stop)
    called = []

    class Note(Callback):
        order = 99

        def before_fit(self, trainer):
            called.append("before_fit")

        def after_fit(self, trainer):
            called.append("after_fit")

    trainer = trained(callbacks=[Stop(), Note()])
    assert (trainer.epoch, called) == (epochs, ["before_fit", "after_fit"]) and not trainer.model.training


class Column(Callback):
    "A column of the history, as a callback of one's own may add it."

    def __init__(self, value):
        self.value = value

    def after_epoch(self, trainer):
        trainer.row["mine"] = self.value


class Total(Callback):
    "A sum over the epochs, kept as a part of a larger tensor."

    def __init__(self, step):
        self.step, self.sums = step, torch.zeros(2)

    def after_epoch(self, trainer):
        self.sums += self.step

    def state(self):
        return {"first": self.sums[:1], "second": self.sums[1:], "step": self.step}

    def load_state(self, state):
        self.sums, self.step = torch.cat([state["first"], state["second"]]), state["step"]


class Killed(Callback):
    order = 99

    def after_epoch(self, trainer):
        if trainer.epoch == 2:
            raise KeyboardInterrupt


ADDED = [(np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), (torch.tensor(2.0), 2.0), ("good", "good"), (None, None)]


@pytest.mark.parametrize("value, kept", ADDED)
def test_a_checkpoint_keeps_what_a_callback_adds_to_the_history(tmp_path, value, kept):
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(callbacks=[Checkpoint(path, every=2), Column(value), Killed()])
    history = trained(callbacks=[ResumeFrom(path)]).history
    assert len(history) == 3 and history[1]["mine"] == kept


def test_callbacks_of_one_class_each_have_their_state_back(tmp_path):
    path, parts = tmp_path / "run.safetensors", [Total(1), Total(10)]
    with pytest.raises(KeyboardInterrupt):
        trained(callbacks=[Checkpoint(path, every=2), *parts, Killed()])
    again = [Total(0), Total(0)]
    trained(callbacks=[ResumeFrom(path), *again])
    assert [part.sums.tolist() for part in again] == [[3, 3], [30, 30]]


def test_divergence_names_epoch_batch_and_term():
    class Break(Callback):
        def after_batch(self, trainer):
            if trainer.step == 5:
                next(trainer.model.decoders[0].parameters()).data.fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"epoch 2, batch 2.*reconstruction_2"):
        trained(callbacks=(Break(),))


@pytest.mark.parametrize("value", [float("nan"), 1e38])
def test_a_last_step_that_breaks_the_model_is_told(value):
    class Break(Callback):
        def after_batch(self, trainer):
            if trainer.step == 3 * trainer.steps_per_epoch:
                next(trainer.model.encoders[0].parameters()).data.fill_(value)

    with pytest.raises(DivergedError, match=r"epoch 3, after its last batch: weights or embedding not finite.*learning_rate"):
        trained(callbacks=(Break(),))


def test_an_interrupted_training_goes_on_with_the_epoch_that_it_was_in():
    codes, rates = [], []

    class Stop(Callback):
        def after_batch(self, trainer):
            if trainer.step == 5 and not trainer.stopped_once:
                trainer.stopped_once = True
                raise KeyboardInterrupt

        def after_epoch(self, trainer):
            rates.append(trainer.learning_rate)

    class Look(Callback):
        order = -6  # before `CodeHealth` forgets

        def after_epoch(self, trainer):
            codes.extend(int(sum(count)) for health in trainer.callbacks if isinstance(health, CodeHealth) for count in health.counts.values())

    config = TrainingConfig(epochs=3, batch_size=64, schedule="one-cycle")
    trainer = Trainer(CrossVQVAE(ModelConfig((6, 6), hidden=(16,), n_latent=4, n_codes=16)), toy(), config, [Stop(), Look()], "cpu")
    trainer.stopped_once = False
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    assert (trainer.epoch, trainer.step, len(trainer.history)) == (3, 3 * trainer.steps_per_epoch, 3)
    assert set(codes) == {200} and rates == [row["learning_rate"] for row in trained(config).history]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, None])
def test_a_bar_is_closed_where_the_training_does_not_come_to_its_end(error, capsys):
    "`None`: the model diverges."

    class Break(Callback):
        def after_batch(self, trainer):
            if trainer.epoch == 1:
                if error is not None:
                    raise error("broken")
                next(trainer.model.decoders[0].parameters()).data.fill_(float("nan"))

        def after_error(self, trainer):
            raise ValueError("this one hides the first error")

    bar = Progress()
    with pytest.raises(error or DivergedError):
        trained(callbacks=(Break(), bar))
    assert bar.bar.disable  # closed
    assert f"fit stopped after {1 if error else 2} of 3 epochs" in capsys.readouterr().err.splitlines()[-1]


def test_a_bar_that_was_not_drawn_needs_no_closing(tmp_path):
    (tmp_path / "run.safetensors").write_text("no checkpoint")
    bar = Progress()
    with pytest.raises(ValueError, match="is no checkpoint"):
        trained(callbacks=[ResumeFrom(tmp_path / "run.safetensors"), bar])
    bar.after_error(None)


def test_a_trainer_is_gone_with_its_last_name():
    gc.collect()
    gc.disable()
    try:
        trainer = trained(TrainingConfig(epochs=2, batch_size=64, validation_fraction=0.2, patience=1))
        left = weakref.ref(trainer), weakref.ref(trainer.optimizer), weakref.ref(trainer.train_data)
        del trainer
        assert [ref() for ref in left] == [None, None, None]
    finally:
        gc.enable()


def test_cuts_cover_every_cell_once():
    for n in (2, 3, 64, 65, 129, 1000):
        for size in (2, 64, 1024):
            cuts = batches_of(n, size)
            assert [start for start, _ in cuts[1:]] == [stop for _, stop in cuts[:-1]]
            assert (cuts[0][0], cuts[-1][1]) == (0, n)
            assert all(stop - start >= min(n, max(2, size // 8)) for start, stop in cuts)
    train, held_out = split_rows(11, 0.3, seed=4)
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(11)) and len(held_out) == 3


def test_a_group_of_few_incomplete_cells_is_trained_on_whole():
    for n, steps, size in ((50, 60, 128), (5, 3, 16), (2, 9, 2), (700, 20, 256)):
        shares = shares_of(n, steps, size, epoch_generator(0, 0))
        assert len(shares) == steps and torch.cat(shares).sort().values.tolist() == list(range(n))
        assert all(len(share) == 0 or len(share) >= min(n, max(2, size // 8)) for share in shares)


def test_too_few_cells_and_bad_settings_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        Trainer(CrossVQVAE(ModelConfig((6, 6))), toy(n=1), device="cpu")
    with pytest.raises(ValueError, match="1 of 10 cells is left to train on.*validation_fraction"):
        Trainer(CrossVQVAE(ModelConfig((6, 6))), toy(n=10), TrainingConfig(validation_fraction=0.95), device="cpu")
    with pytest.raises(ValueError, match="schedule="):
        TrainingConfig(schedule="cyclic")


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.2, "revive_below": 0.1, "fusion": "linear", "routes": "all", "lambda_geometry": 1.0}])
def test_a_step_is_one_graph_for_the_compiler(monkeypatch, changes):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: compile_(f, backend="eager", fullgraph=True, dynamic=dynamic))
    eager, compiled = (trained(TrainingConfig(epochs=3, batch_size=64, compile=on), **changes).history_frame() for on in (False, True))
    assert compiled["train_loss"].tolist() == pytest.approx(eager["train_loss"].tolist(), rel=1e-6)


def test_a_training_keeps_the_chosen_number_of_threads():
    chosen, before = torch.get_num_threads(), trained().model.state_dict()
    with threadpool_limits(chosen + 1, user_api="openmp"):  # what numba does in a UMAP
        assert torch.get_num_threads() == chosen + 1
        after = trained().model.state_dict()
        assert torch.get_num_threads() == chosen
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_number_of_threads_set_by_hand_is_kept():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        trained()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_rounded_products_end_with_the_training():
    history = trained(TrainingConfig(epochs=2, batch_size=64, precision="tf32")).history_frame()
    assert len(history) == 2 and torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError, match="is not one of float32, tf32, bfloat16"):
        TrainingConfig(precision="float16")


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="PyTorch before 2.9 has one switch")
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_rounding_that_was_chosen_for_one_backend_is_kept(precision):
    rounding, inside = lambda: [backend.matmul.fp32_precision for backend in (torch.backends.cuda, torch.backends.mkldnn)], []

    class Look(Callback):
        def after_batch(self, trainer):
            inside.append(rounding()[0])

    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
            torch.get_float32_matmul_precision()
        chosen = rounding()
        trained(TrainingConfig(epochs=1, batch_size=64, precision=precision), [Look()])
        assert set(inside) == {"tf32"} and rounding() == chosen
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_training_needs_gradients_and_has_them(switched_off):
    expected = trained().model.state_dict()
    model = CrossVQVAE(ModelConfig((6, 6), hidden=(16,), n_latent=4, n_codes=16))
    cells = toy()
    with switched_off():
        found = Trainer(model, cells, TrainingConfig(epochs=3, batch_size=64), device="cpu").fit().model.state_dict()
        assert not torch.is_grad_enabled()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_training_within_autocast_computes_as_it_was_configured():
    choices = dict(agreement=0.5, equal_covariance=True, component_scale=0.5, fusion="linear", routes="all")
    expected, cells = trained(**choices), toy()
    with torch.autocast("cpu", torch.bfloat16):
        model = CrossVQVAE(ModelConfig((6, 6), hidden=(16,), n_latent=4, n_codes=16, **choices))
        found = Trainer(model, cells, TrainingConfig(epochs=3, batch_size=64), device="cpu").fit()
        assert torch.is_autocast_enabled("cpu")
    assert all(torch.equal(value, found.model.state_dict()[name]) for name, value in expected.model.state_dict().items())
    pd.testing.assert_frame_equal(expected.history_frame().drop(columns="seconds"), found.history_frame().drop(columns="seconds"))


def test_weights_are_single_precision_whatever_the_default():
    expected, cells = trained(dropout=0.2, revive_below=0.1).model.state_dict(), toy()
    torch.set_default_dtype(torch.float64)
    try:
        model = CrossVQVAE(ModelConfig((6, 6), hidden=(16,), n_latent=4, n_codes=16, dropout=0.2, revive_below=0.1))
        found = Trainer(model, cells, TrainingConfig(epochs=3, batch_size=64), device="cpu").fit().model.state_dict()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(value.dtype == found[name].dtype and torch.equal(value, found[name]) for name, value in expected.items())


def test_the_measurement_on_a_gpu_runs_on_the_cpu(tmp_path):
    script = Path(__file__).parents[1] / "nbs" / "benchmarks" / "gpu.py"
    size = ["--device", "cpu", "--cells", "64", "--components", "5", "--epochs", "2"]
    command = [sys.executable, script, *size, "--ways", "plain loop, DataLoader;float32;bfloat16", "--out", tmp_path / "gpu.csv"]
    subprocess.run(command, check=True, capture_output=True)
    rows = pd.read_csv(tmp_path / "gpu.csv")
    assert rows["way"].tolist() == ["plain loop, DataLoader", "float32", "bfloat16"] and (rows["loss"] > 0).all()
