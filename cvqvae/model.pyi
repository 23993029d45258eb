# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["JOINT", "routes_of", "Output", "CrossVQVAE"]
from typing import NamedTuple
from torch import Tensor, nn
from .bottlenecks import Latent
from .configuration import ModelConfig

JOINT: str

def routes_of(config: ModelConfig) -> list[tuple[int | str, int]]:
    '''The routes that are trained, in a fixed order.

    Parameters
    ----------
    config
        of the model

    Returns
    -------
    (source, target); a source is a modality's position or "joint"'''

class Output(NamedTuple):
    """What `CrossVQVAE` computes for a batch."""

    latents: dict[int | str, Latent]
    reconstructions: dict[tuple[int | str, int], Tensor]

    def detached(self) -> Output:
        """The same values without the graph that they were computed in, which can then be given back."""

class CrossVQVAE(nn.Module):
    """Encoders and decoders of all modalities, connected by routes through one bottleneck per source (paper, Figure 3)."""

    config: ModelConfig
    routes: list[tuple[int | str, int]]
    sources: list[int | str]
    encoders: nn.ModuleList
    decoders: nn.ModuleList
    bottlenecks: nn.ModuleDict
    has_codes: bool
    fusion: nn.Module | None

    def __init__(self, config: ModelConfig) -> None:
        """Encoders and decoders of all modalities, connected by routes through one bottleneck per source (paper, Figure 3).

        Parameters
        ----------
        config
            every choice; the weights are drawn under its seed"""

    def _build(self, c: ModelConfig) -> None: ...
    def forward(self, inputs: list[Tensor | None], batch: Tensor | None = None) -> Output:
        """Encode every modality, pass the bottlenecks, decode along the routes between what was measured.

        Parameters
        ----------
        inputs
            components per modality, float [n, n_inputs[i]]; None: not measured in these cells
        batch
            one-hot covariate, float [n, n_batches]"""

    def corrected(self, x: Tensor, modality: int, batch: Tensor | None) -> Tensor:
        """Components without the offset of their batch, where the configuration asks for it.

        Parameters
        ----------
        x
            components of one modality, float [n, n_inputs[modality]]
        modality
            its position
        batch
            one-hot covariate, float [n, n_batches]

        Returns
        -------
        the same shape"""

    def leading(self, x: Tensor, modality: int) -> Tensor:
        """The components that decoders write and losses compare.

        Parameters
        ----------
        x
            components of one modality, float [n, n_inputs[modality]]
        modality
            its position

        Returns
        -------
        float [n, n_outputs[modality]], a view"""

    def bottleneck_of(self, source: int | str) -> nn.Module:
        '''The source's own bottleneck, or the only one there is.

        Parameters
        ----------
        source
            a modality's position or "joint"'''

    def _scaled(self, h: Tensor) -> Tensor: ...
    def encode(self, x: Tensor, modality: int, batch: Tensor | None = None) -> Latent:
        """Latent of one modality, through its encoder and bottleneck.

        Parameters
        ----------
        x
            components of one modality, float [n, n_inputs[modality]]
        modality
            its position
        batch
            one-hot covariate, float [n, n_batches]"""

    def fuse(self, outputs: list[Tensor], inputs: list[Tensor], batch: Tensor | None = None) -> Tensor:
        """Joint latent before the bottleneck: the mean, a linear map of all outputs, or an encoder of all components.

        Parameters
        ----------
        outputs
            encoder outputs of all modalities, each float [n, d]
        inputs
            their components, read where the joint latent has an encoder of its own
        batch
            one-hot covariate, float [n, n_batches]

        Returns
        -------
        float [n, d]"""

    def encode_all(self, inputs: list[Tensor | None], batch: Tensor | None = None) -> dict[int | str, Latent]:
        """Latents of all modalities and the joint one; what is not a source of any route has z alone while training.

        Parameters
        ----------
        inputs
            components per modality, float [n, n_inputs[i]]; None: not measured in these cells
        batch
            one-hot covariate, float [n, n_batches]

        Returns
        -------
        per measured modality's position, and "joint" where all were measured"""

    def _latent(self, source: int | str, h: Tensor) -> Latent: ...
    def embed_all(self, inputs: list[Tensor | None], batch: Tensor | None = None) -> dict[int | str, Latent]:
        '''What a trained model says of cells: as `encode_all`, with consensus (also where a modality is missing), agreement and component scale as configured.

        Parameters
        ----------
        inputs
            components per modality, float [n, n_inputs[i]]; None: not measured in these cells
        batch
            one-hot covariate, float [n, n_batches]

        Returns
        -------
        per measured modality's position, and "joint"'''

    def consensus_of(self, latents: dict[int | str, Latent]) -> Latent:
        """The joint latent, with its share of the modalities' latents; where a modality is missing, of these alone.

        Parameters
        ----------
        latents
            per source, of `encode_all`"""

    def decode(self, e: Tensor, modality: int, batch: Tensor | None = None) -> Tensor:
        """Components of a modality, predicted from a latent of any source.

        Parameters
        ----------
        e
            latent behind the bottleneck, float [n, d]
        modality
            position of the modality to predict
        batch
            one-hot covariate, float [n, n_batches]

        Returns
        -------
        components, float [n, n_outputs[modality]]"""

    def decode_all(self, latents: dict[int | str, Latent], inputs: list[Tensor | None], batch: Tensor | None = None) -> dict[tuple[int | str, int], Tensor]:
        """Predictions along the routes between what was measured.

        Parameters
        ----------
        latents
            per source, of `encode_all`
        inputs
            components per modality; None: not measured in these cells
        batch
            one-hot covariate, float [n, n_batches]

        Returns
        -------
        (source, target) -> float [n, n_outputs[target]]"""
