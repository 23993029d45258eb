"""Invariants of the cross-trained model: where gradients go, what the loss adds up to, what the variants share."""

import pytest
import torch

from cvqvae.configuration import VARIANTS, ModelConfig
from cvqvae.losses import loss_terms, set_target_variance
from cvqvae.model import JOINT, CrossVQVAE, routes_of

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
