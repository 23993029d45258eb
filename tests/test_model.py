"""Invariants of the cross-trained model: where gradients go, what the loss adds up to, what the variants share."""

from copy import deepcopy
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cvqvae import batch_offsets
from cvqvae.batches import CellData
from cvqvae.callbacks import PrepareModel
from cvqvae.configuration import VARIANTS, ModelConfig
from cvqvae.losses import loss_terms, set_target_variance
from cvqvae.model import JOINT, CrossVQVAE, routes_of
from cvqvae.presets import PRESETS
from cvqvae.quantizer import VectorQuantizer
from cvqvae.training import Trainer, TrainingConfig

SMALL = dict(hidden=(16, 12, 8), n_latent=4, n_codes=16)


def example(n=24, widths=(6, 5), n_batches=2, **changes):
    weights = (1.0,) * len(widths)
    model = CrossVQVAE(ModelConfig(widths, n_batches, lambda_modality=weights, **{**SMALL, **changes}))
    inputs = [torch.randn(n, k, generator=torch.Generator().manual_seed(k)) for k in widths]
    batch = torch.eye(n_batches)[torch.arange(n) % n_batches] if n_batches else None
    return model, inputs, batch


def networks_reached(model, loss):
    model.zero_grad()
    loss.backward(retain_graph=True)
    parameters = model.named_parameters()
    return {".".join(name.split(".")[:2]) for name, p in parameters if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("widths", [(6, 5), (6, 5, 4)])
def test_each_route_reaches_its_encoder_and_the_other_decoder_only(widths):
    model, inputs, batch = example(widths=widths)
    output = model(inputs, batch)
    assert len(output.reconstructions) == len(widths) * (len(widths) - 1)
    for (source, target), reconstruction in output.reconstructions.items():
        assert source != target
        reached = networks_reached(model, reconstruction.square().mean())
        assert reached == {f"encoders.{source}", f"decoders.{target}"}


def test_all_routes_include_the_direct_ones():
    model, inputs, batch = example(routes="all", fusion="mean")
    assert set(routes_of(model.config)) == {(0, 0), (0, 1), (1, 0), (1, 1), (JOINT, 0), (JOINT, 1)}
    assert set(model(inputs, batch).reconstructions) == set(routes_of(model.config))


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_loss_is_the_weighted_sum_of_its_terms(variant):
    model, inputs, batch = example(**VARIANTS[variant])
    set_target_variance(model, inputs)
    terms = loss_terms(model, model(inputs, batch), inputs)
    weight = model.config.lambda_joint if JOINT in model.sources else 1.0
    parts = [value for name, value in terms.items() if name not in ("loss", "alignment")]
    assert torch.isclose(terms["loss"], weight * sum(parts) + 10 * terms["alignment"], rtol=1e-5)


def test_predicting_the_mean_costs_one():
    model, inputs, batch = example()
    set_target_variance(model, inputs)
    output = model(inputs, batch)
    means = {(i, j): inputs[j].mean(0).expand_as(inputs[j]) for i, j in output.reconstructions}
    terms = loss_terms(model, output._replace(reconstructions=means), inputs)
    assert torch.isclose(terms["reconstruction_1"], torch.tensor(1.0), atol=1e-5)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_eval_is_deterministic_and_leaves_the_model_as_it_was(variant):
    model, inputs, batch = example(**VARIANTS[variant])
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = model(inputs, batch), model(inputs, batch)
    assert all(torch.equal(a, b) for a, b in zip(first.reconstructions.values(), second.reconstructions.values()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_cells_are_independent_in_eval_mode():
    model, inputs, batch = example()
    model.eval()
    order = torch.randperm(24)
    z = model.encode(inputs[0], 0, batch).z
    assert torch.allclose(model.encode(inputs[0][order], 0, batch[order]).z, z[order], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_can_be_made_double_or_half_as_any_module(variant, dtype):
    model, inputs, batch = example(**VARIANTS[variant])
    expected = model.eval()(inputs, batch)
    found = deepcopy(model).to(dtype)([x.to(dtype) for x in inputs], batch.to(dtype))
    for route, values in expected.reconstructions.items():
        assert found.reconstructions[route].dtype == dtype and torch.allclose(found.reconstructions[route].float(), values, atol=0.2)
    if dtype == torch.float64:
        assert all(torch.allclose(found.latents[s].z.float(), latent.z, atol=1e-5) for s, latent in expected.latents.items())
        trained = deepcopy(model).to(dtype).train()
        output = trained([x.to(dtype) for x in inputs], batch.to(dtype))
        loss_terms(trained, output, [x.to(dtype) for x in inputs], batch.to(dtype))["loss"].backward()


def test_average_and_linear_fusion():
    model, inputs, _ = example(n_batches=0, **VARIANTS["cvqvae-avg"])
    latents = model.eval().encode_all(inputs)
    assert torch.allclose(latents[JOINT].z, (latents[0].z + latents[1].z) / 2, atol=1e-6)
    linear, inputs, _ = example(n_batches=0, **VARIANTS["cvqvae-lin"])
    latents = linear.eval().encode_all(inputs)
    assert torch.allclose(latents[JOINT].z, linear.fusion(torch.cat([latents[0].z, latents[1].z], 1)), atol=1e-6)


def test_same_seed_same_weights_other_seed_other_weights():
    a, b, c = (example(seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize(
    "changes, message",
    [({"bottleneck": "none"}, "bottleneck"), ({"routes": "joint"}, "needs a fusion"), ({"lambda_modality": (1.0,)}, "2 modalities")],
)
def test_bad_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig((6, 5), **changes)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_consensus_is_the_weighted_mean_of_all_latents(variant):
    config = ModelConfig((6, 5), n_batches=0, hidden=(8,), n_latent=4, n_codes=16, consensus=0.5, **({"fusion": "encoder"} | VARIANTS[variant]))
    model = CrossVQVAE(config).eval()
    model.modality_weight_0.fill_(1.5)
    model.modality_weight_1.fill_(0.5)
    inputs = [torch.randn(7, 6), torch.randn(7, 5)]
    plain, found = model.encode_all(inputs), model.embed_all(inputs)
    expected = 0.5 * plain["joint"].z + 0.5 * (1.5 * plain[0].z + 0.5 * plain[1].z) / 2
    assert torch.allclose(found["joint"].z, expected, atol=1e-6)
    assert torch.equal(found[0].z, plain[0].z) and (found["joint"].codes is None) == (config.bottleneck == "gaussian")


# two modalities, written out ---------------------------------------------------------------------------------------------------------


def codebook(of, config):
    "A plain quantizer with the codes of another one."
    quantizer = VectorQuantizer(config.n_codes, config.n_latent, config.decay, config.commitment_weight, revive_below=config.revive_below)
    quantizer.load_state_dict(of.state_dict())
    return quantizer


class PlainPaper(torch.nn.Module):
    "Figure 3 and equation 2 for two modalities: E1 -> Q1 -> D2 and E2 -> Q2 -> D1, the batch B in every network."

    def __init__(self, model):
        super().__init__()
        self.e1, self.e2, self.d1, self.d2 = map(deepcopy, (*model.encoders[:2], *model.decoders[:2]))
        self.q1, self.q2 = (codebook(model.bottlenecks[source], model.config) for source in "01")

    def loss(self, x1, x2, b):
        z1, z2 = self.e1(torch.cat([x1, b], 1)), self.e2(torch.cat([x2, b], 1))
        e1, _, commitment1 = self.q1(z1)
        e2, _, commitment2 = self.q2(z2)
        x2_from_1, x1_from_2 = self.d2(torch.cat([e1, b], 1)), self.d1(torch.cat([e2, b], 1))
        l1 = F.mse_loss(x2_from_1, x2) / x2.var(0, correction=0).mean() + commitment1
        l2 = F.mse_loss(x1_from_2, x1) / x1.var(0, correction=0).mean() + commitment2
        return 1 * l1 + 1 * l2 + 10 * F.mse_loss(z1, z2)

    def like(self, model):
        "What of a general model each part must equal."
        pairs = zip((self.e1, self.e2, self.d1, self.d2), (*model.encoders[:2], *model.decoders[:2]))
        return [*pairs, (self.q1, model.bottlenecks["0"]), (self.q2, model.bottlenecks["1"])]


class PlainDefault(torch.nn.Module):
    "The preset `default` for two modalities: three encoders, one codebook, two decoders, six routes."

    def __init__(self, model):
        super().__init__()
        self.e1, self.e2, self.e12, self.d1, self.d2 = map(deepcopy, (*model.encoders, model.fusion, *model.decoders))
        self.q = codebook(model.bottlenecks["0"], model.config)
        self.o1, self.o2 = model.batch_offset_0.clone(), model.batch_offset_1.clone()
        self.w1, self.w2 = model.modality_weight_0.clone(), model.modality_weight_1.clone()

    def coded(self, h):
        z = h / h.norm(dim=1, keepdim=True).clamp(min=1e-3) ** 0.5
        e, _, commitment = self.q(z)
        return z, torch.where(torch.rand(len(z), 1) < 0.25, e, z), commitment

    @staticmethod
    def cosines(rows):
        unit = F.normalize(rows - rows.mean(0), dim=1)
        return unit @ unit.T

    def loss(self, x1, x2, b):
        v1, v2 = x1.var(0, correction=0).mean(), x2.var(0, correction=0).mean()
        x1_in, x2_in = (x1 - b @ self.o1) * v1**-0.5, (x2 - b @ self.o2) * v2**-0.5
        h1, h2, h12 = self.e1(x1_in), self.e2(x2_in), self.e12(torch.cat([x1_in, x2_in], 1))  # dropout draws before the bottlenecks do
        (z1, e1, commitment1), (z2, e2, commitment2), (z12, e12, commitment12) = map(self.coded, (h1, h2, h12))
        x2_from_1, x1_from_2 = self.d2(torch.cat([e1, b], 1)), self.d1(torch.cat([e2, b], 1))
        x1_from_1, x2_from_2 = self.d1(torch.cat([e1, b], 1)), self.d2(torch.cat([e2, b], 1))
        x1_from_12, x2_from_12 = self.d1(torch.cat([e12, b], 1)), self.d2(torch.cat([e12, b], 1))

        def error1(x):
            return self.w1 * (F.mse_loss(x * v1**0.5, x1) / v1)

        def error2(x):
            return self.w2 * (F.mse_loss(x * v2**0.5, x2) / v2)

        l1 = (error2(x2_from_1) + error1(x1_from_1)) / 2 + commitment1
        l2 = (error1(x1_from_2) + error2(x2_from_2)) / 2 + commitment2
        l12 = (error1(x1_from_12) + error2(x2_from_12)) / 2 + commitment12
        spread = (z1.detach().var(0, correction=0).mean() + z2.detach().var(0, correction=0).mean()) / 2
        teacher = z12.detach()
        taught = (F.mse_loss(z1, teacher) + F.mse_loss(z2, teacher)) / 2 / teacher.var(0, correction=0).mean()
        rows = [self.w1 * (x1 - b @ self.o1) / (v1 * x1.shape[1]).sqrt(), self.w2 * (x2 - b @ self.o2) / (v2 * x2.shape[1]).sqrt()]
        shape = F.mse_loss(self.cosines(z12), self.cosines(torch.cat(rows, 1)))
        return l1 + l2 + 2 * l12 + 1 * F.mse_loss(z1, z2) / spread + 10 * taught + 20 * shape

    def like(self, model):
        pairs = zip((self.e1, self.e2, self.e12, self.d1, self.d2), (*model.encoders, model.fusion, *model.decoders))
        return [*pairs, (self.q, model.bottlenecks["0"])]


def same(a, b):
    return (a is None) == (b is None) and (a is None or torch.equal(a, b))


def assert_same_parts(plain, model):
    for own, general in plain.like(model):
        assert own.state_dict().keys() == general.state_dict().keys()
        assert all(torch.equal(value, general.state_dict()[name]) for name, value in own.state_dict().items())
        others = dict(general.named_parameters())
        assert all(same(parameter.grad, others[name].grad) for name, parameter in own.named_parameters())


def test_what_only_encoders_read_is_not_compared():
    model, inputs, batch = example(48, (9, 8), n_outputs=(6, 5), routes="all", fusion="encoder", lambda_geometry=1.0, reliability_power=2.0, batch_offsets=True)
    output, changed = model(inputs, batch), [torch.cat([x[:, :k], 3 * x[:, k:] + 1], 1) for x, k in zip(inputs, (6, 5), strict=True)]
    assert {target: x.shape[1] for (_, target), x in output.reconstructions.items()} == {0: 6, 1: 5}
    assert not torch.equal(output.latents[0].z, model(changed, batch).latents[0].z)
    found = []
    for read in (inputs, changed):
        PrepareModel().before_fit(Trainer(model, CellData(read, batch), TrainingConfig(kmeans_codes=False), device="cpu"))
        assert [x.shape[1] for x in (model.batch_offset_0, model.batch_offset_1)] == [9, 8]
        buffers = [model.target_variance_0.clone(), model.modality_weight_1.clone(), model.batch_offset_0[:, :6].clone()]
        found.append([*buffers, *loss_terms(model, output, read, batch).values()])
    assert all(torch.allclose(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("width", [3, 20])  # trees, and all distances
def test_offsets_ask_every_batch_once_and_find_what_every_two_batches_find(width, monkeypatch):
    rng, asked = np.random.default_rng(0), []
    sizes = [40, 3, 0, 25, 60, 1]
    codes = rng.permutation(np.repeat(np.arange(6), sizes))
    rows = (rng.normal(size=(len(codes), width)) + rng.normal(size=(6, width))[codes]).astype(np.float32)
    nearest = batch_offsets._nearest
    monkeypatch.setattr(batch_offsets, "_nearest", lambda *given: asked.append(len(given[0])) or nearest(*given))
    (found,) = batch_offsets.offset_step(rows, [rows], codes, 6)
    assert asked == [size for size in sizes if size]
    laplacian, total = np.zeros((6, 6)), np.zeros((6, width))
    for a, b in combinations(range(6), 2):
        if sizes[a] and sizes[b]:
            first, second = rows[codes == a].astype(float), rows[codes == b].astype(float)
            distance = ((first[:, None] - second) ** 2).sum(2)
            mutual = (distance.argsort(1).argsort(1) < 10) & (distance.argsort(0).argsort(0) < 10)
            n, moved = mutual.sum(), (mutual[:, :, None] * (first[:, None] - second)).sum((0, 1))
            laplacian[[a, b, a, b], [a, b, b, a]] += (n, n, -n, -n)
            total[[a, b]] += (moved, -moved)
    expected = np.linalg.pinv(laplacian, hermitian=True, rcond=1e-6) @ total
    np.testing.assert_allclose(found, expected - np.array(sizes) @ expected / sum(sizes), atol=1e-5)
    (alone,) = batch_offsets.offset_step(rows[:9], [rows[:9]], np.zeros(9, int), 2)
    assert not alone.any()


def trainer_of(preset, widths=(6, 5), n=48):
    model, inputs, batch = example(n, widths, **(PRESETS[preset].model | SMALL))
    inputs[1][:, :2] += 3 * inputs[0][:, :2]  # each says something of the other, and not equally much
    trainer = Trainer(model, CellData(inputs, batch), TrainingConfig(**PRESETS[preset].training), device="cpu")
    PrepareModel().before_fit(trainer)
    return trainer


@pytest.mark.parametrize("preset, plainly", [("paper", PlainPaper), ("default", PlainDefault)])
def test_two_modalities_are_the_two_modality_model_to_the_bit(preset, plainly):
    trainer = trainer_of(preset)
    plain, (x1, x2), b = plainly(trainer.model), trainer.train_data.inputs, trainer.train_data.batch
    optimizer = torch.optim.AdamW(plain.parameters(), weight_decay=trainer.config.weight_decay, fused=True)
    assert_same_parts(plain, trainer.model)
    assert (trainer.model.modality_weight_0 != 1) == (preset == "default")
    trainer.model.train()
    for step in range(3):
        torch.manual_seed(step)
        terms = trainer.train_step(trainer.train_data)
        torch.manual_seed(step)
        loss = plain.loss(x1, x2, b)
        assert torch.equal(terms["loss"], loss)
        optimizer.param_groups[0]["lr"] = trainer.optimizer.param_groups[0]["lr"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert_same_parts(plain, trainer.model)


def test_three_modalities_train_six_routes_and_without_the_third_they_are_two_to_the_bit():
    trainer = trainer_of("paper", widths=(6, 5, 4))
    model, ((x1, x2, x3), b) = trainer.model.train(), (trainer.train_data.inputs, trainer.train_data.batch)
    plain, other = PlainPaper(model).train(), deepcopy(model)
    assert set(other([x1, x2, x3], b).reconstructions) == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    output = model([x1, x2, None], b)
    assert set(output.reconstructions) == {(0, 1), (1, 0)} and set(output.latents) == {0, 1}
    terms, loss = loss_terms(model, output, [x1, x2, None], b), plain.loss(x1, x2, b)
    assert torch.equal(terms["loss"], loss)
    terms["loss"].backward()
    loss.backward()
    assert_same_parts(plain, model)
    assert all(p.grad is None for part in (model.encoders[2], model.decoders[2]) for p in part.parameters())


@pytest.mark.parametrize("widths", [(6, 5), (20, 3), (6, 6, 6)])
def test_the_loss_of_the_gaussian_variant_is_the_evidence_lower_bound_of_every_source(widths):
    "However many components a source predicts: -ELBO times 2 / k, up to a constant, in eval mode, where the sample is the mean."
    model, inputs, batch = example(widths=widths, **VARIANTS["cvae"])
    set_target_variance(model.eval(), inputs)
    output = model(inputs, batch)
    terms = loss_terms(model, output, inputs, batch)
    for s, x in enumerate(inputs):
        mean, log_variance = model.encoders[s](torch.cat([x, batch], 1)).chunk(2, 1)
        posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        bound = -torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
        targets = [j for j in range(len(widths)) if j != s]
        for j in targets:
            spread = getattr(model, f"target_variance_{j}").sqrt()
            found, at_best = (torch.distributions.Normal(y, spread).log_prob(inputs[j]) for y in (output.reconstructions[s, j], inputs[j]))
            bound = bound + (found - at_best).sum(1).mean()
        loss = terms[f"reconstruction_{s + 1}"] + terms[f"kl_{s + 1}"]
        assert loss.item() == pytest.approx(-bound.item() * 2 / sum(widths[j] for j in targets), rel=1e-4)
