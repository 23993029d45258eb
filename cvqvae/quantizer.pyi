# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["nearest_code", "straight_through", "code_sums", "smoothed_counts", "code_usage", "perplexity", "kmeans_codes", "Quantized", "VectorQuantizer"]
from typing import NamedTuple
from torch import Tensor, nn

def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code with the smallest Euclidean distance to each row of `z`.

    Parameters
    ----------
    z
        latent vectors, float [n, d]
    codebook
        codes, float [K, d]

    Returns
    -------
    index of the nearest code, int64 [n]"""

def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """Value of the code in the forward pass, identity in the backward pass.

    Parameters
    ----------
    z
        encoder output, float [n, d]
    quantized
        its codes, float [n, d]

    Returns
    -------
    float [n, d]: the value of `quantized`, the gradient of `z`"""

def code_sums(z: Tensor, codes: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """Per code, how many rows chose it and the sum of these rows; summed over all processes of a distributed run.

    Parameters
    ----------
    z
        latent vectors, float [n, d]
    codes
        chosen codes, int64 [n]
    n_codes
        K

    Returns
    -------
    cells per code, float [K]; sum of their vectors, float [K, d]"""

def smoothed_counts(count: Tensor, epsilon: float) -> Tensor:
    """Laplace-smoothed counts: an unused code never divides by zero.

    Parameters
    ----------
    count
        moving counts, float [K]
    epsilon
        added to every count before renormalising

    Returns
    -------
    float [K], every entry above 0, same sum as `count`"""

def code_usage(codes: Tensor, n_codes: int) -> Tensor:
    """Share of the cells that chose each code.

    Parameters
    ----------
    codes
        chosen codes, int64 [n]
    n_codes
        K

    Returns
    -------
    share of the cells per code, float [K], sums to 1"""

def perplexity(usage: Tensor) -> float:
    """Exponential of the entropy of the code usage.

    Parameters
    ----------
    usage
        share per code, float [K]

    Returns
    -------
    between 1 (one code) and K (all alike)"""

def kmeans_codes(z: Tensor, n_codes: int, seed: int = 0) -> Tensor:
    """k-means centres of `z`; with fewer cells than codes, the remaining codes are jittered copies of cells.

    Parameters
    ----------
    z
        encoded cells, float [n, d]
    n_codes
        K
    seed
        of the k-means start and of the draws

    Returns
    -------
    float [K, d] on the device of `z`"""

class Quantized(NamedTuple):
    """What `VectorQuantizer` returns for a batch of n vectors."""

    e: Tensor
    codes: Tensor
    commitment: Tensor

class VectorQuantizer(nn.Module):
    """Nearest code, straight-through gradient, codebook by moving averages (paper, section 2 and Appendix A)."""

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    n_codes: int
    dim: int
    decay: float
    epsilon: float
    commitment_weight: float
    revive_below: float
    frozen: bool

    def __init__(
        self, n_codes: int = 2048, dim: int = 16, decay: float = 0.99, commitment_weight: float = 0.25, epsilon: float = 1e-05, revive_below: float = 0.0
    ) -> None:
        """Nearest code, straight-through gradient, codebook by moving averages (paper, section 2 and Appendix A).

        Parameters
        ----------
        n_codes
            K, size of the codebook
        dim
            d, length of a code
        decay
            gamma of Appendix A, in (0, 1)
        commitment_weight
            beta of equation 1
        epsilon
            Laplace smoothing of the counts
        revive_below
            moving count below which a code is moved onto a cell of the batch; 0: never"""

    def extra_repr(self) -> str: ...
    def forward(self, z: Tensor) -> Quantized:
        """Quantize `z` [n, d]; in training mode, and unless frozen, the codebook then takes one step."""

    def initialize(self, z: Tensor, seed: int = 0) -> None:
        """Put the codes at k-means centres of `z` and restart the moving averages there.

        Parameters
        ----------
        z
            encoded cells, float [n, d]
        seed
            of the k-means"""

    def freeze(self, frozen: bool = True) -> VectorQuantizer:
        """Stop (or restart) the codebook's updates; gradients still pass straight through."""
