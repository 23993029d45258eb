"""Properties of the quantizer, against the textbook form of Appendix A with one-hot products."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvqvae.quantizer import VectorQuantizer, code_usage, kmeans_codes, nearest_code, perplexity

sizes = st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5), st.integers(0, 10_000))


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_nearest_code_minimises_the_distance(size):
    n, n_codes, dim, seed = size
    torch.manual_seed(seed)
    z, codebook = torch.randn(n, dim), torch.randn(n_codes, dim)
    distance = torch.cdist(z, codebook)
    chosen = distance.gather(1, nearest_code(z, codebook)[:, None]).squeeze(1)
    assert torch.allclose(chosen, distance.min(1).values, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(sizes, st.floats(0.5, 0.999))
def test_step_equals_the_one_hot_form(size, decay):
    n, n_codes, dim, seed = size
    torch.manual_seed(seed)
    layer, z = VectorQuantizer(n_codes, dim, decay=decay, epsilon=1e-3), torch.randn(n, dim)
    one_hot = torch.eye(n_codes)[nearest_code(z, layer.codebook)]
    count = decay * layer.ema_count + (1 - decay) * one_hot.sum(0)
    total = decay * layer.ema_sum + (1 - decay) * one_hot.T @ z
    smooth = (count + 1e-3) / (count.sum() + n_codes * 1e-3) * count.sum()
    layer(z)
    assert torch.allclose(layer.ema_count, count, atol=1e-5)
    assert torch.allclose(layer.codebook, total / smooth[:, None], atol=1e-4)


def test_codebook_is_no_parameter_and_gradient_passes_through():
    layer = VectorQuantizer(8, 3)
    assert not list(layer.parameters())
    z = torch.randn(5, 3, requires_grad=True)
    layer(z).e.sum().backward()
    assert torch.equal(z.grad, torch.ones(5, 3))


@pytest.mark.parametrize("state", ["eval", "frozen"])
def test_nothing_moves_when_it_should_not(state):
    layer = VectorQuantizer(8, 3, revive_below=1.0)
    layer = layer.eval() if state == "eval" else layer.freeze()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(torch.randn(50, 3))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_frozen_layer_moves_again_when_thawed():
    layer = VectorQuantizer(8, 3).freeze().freeze(False)
    before = layer.codebook.clone()
    layer(torch.randn(50, 3))
    assert not torch.equal(before, layer.codebook)


def test_revival_resets_count_and_sum_together():
    layer = VectorQuantizer(64, 2, revive_below=0.5)
    z = torch.randn(16, 2) * 0.01
    for _ in range(200):
        layer(z)
    ratio = layer.ema_sum / layer.ema_count[:, None]
    assert torch.isfinite(ratio).all()
    assert torch.cdist(ratio, z).min(1).values.max() < 0.05


def test_kmeans_is_deterministic_and_covers_small_inputs():
    z = torch.randn(10, 4)
    assert torch.equal(kmeans_codes(z, 32, seed=3), kmeans_codes(z, 32, seed=3))
    assert torch.isfinite(kmeans_codes(torch.zeros(3, 2), 5)).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_perplexity_lies_between_one_and_the_codes_used(codes):
    usage = code_usage(torch.tensor(codes), 10)
    assert 1 - 1e-4 <= perplexity(usage) <= (usage > 0).sum() + 1e-3


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="n_codes >= 1"):
        VectorQuantizer(0, 4)
    with pytest.raises(ValueError, match="decay"):
        VectorQuantizer(4, 4, decay=1.0)
