# Made by `make export` from the module of this name: edit its notebook.
from typing import overload

__all__ = ["CVQVAE"]
from collections.abc import Mapping, Sequence
from pathlib import Path
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from .callbacks import Callback
from .components import Components
from .configuration import ModelConfig
from .model import CrossVQVAE, Latent
from .presets import Preset
from .reading import CellReader
from .training import TrainingConfig

class CVQVAE:
    """Integrates paired modalities of the same cells: `fit`, `embed`, `codes`, `translate`, `save`, `load`."""

    settings: Preset
    preset_name: str
    mdata: MuData | None
    device: torch.device
    unpaired: str
    history: pd.DataFrame
    reader: CellReader
    config: ModelConfig
    training: TrainingConfig
    modalities: list[str]
    module: CrossVQVAE

    def __init__(
        self,
        data: MuData | Sequence[AnnData] | Mapping[str, AnnData],
        preset: str | Preset = "default",
        batch_key: str | None = None,
        kinds: Mapping[str, str] | None = None,
        seed: int | None = None,
        device: str | torch.device | None = None,
        variant: str = "cvqvae",
        unpaired: str = "drop",
        *,
        n_components: int = ...,
        n_top_genes: int = ...,
        target_sum: float | None = ...,
        drop_depth_components: bool = ...,
        n_further: int = ...,
        gene_scale: str = ...,
        n_latent: int = ...,
        hidden: tuple[int, ...] = ...,
        decoder_hidden: tuple[int, ...] | None = ...,
        joint_hidden: tuple[int, ...] | None = ...,
        skip: bool = ...,
        linear_skip: bool = ...,
        norm: str | None = ...,
        dropout: float = ...,
        input_dropout: float = ...,
        scale_inputs: bool = ...,
        encoder_batch: bool = ...,
        batch_offsets: bool = ...,
        length_power: float = ...,
        consensus: float = ...,
        agreement: float = ...,
        equal_covariance: bool = ...,
        component_scale: float = ...,
        bottleneck: str = ...,
        routes: str = ...,
        fusion: str | None = ...,
        n_codes: int = ...,
        decay: float = ...,
        commitment_weight: float = ...,
        revive_below: float = ...,
        shared_codebook: bool = ...,
        quantized_share: float = ...,
        lambda_joint: float = ...,
        lambda_alignment: float = ...,
        relative_alignment: bool = ...,
        lambda_distillation: float = ...,
        lambda_geometry: float = ...,
        reliability_power: float = ...,
        lambda_kl: float = ...,
        epochs: int = ...,
        batch_size: int = ...,
        learning_rate: float = ...,
        schedule: str = ...,
        schedule_epochs: int = ...,
        weight_decay: float = ...,
        gradient_clip: float | None = ...,
        validation_fraction: float = ...,
        patience: int | None = ...,
        kmeans_codes: bool = ...,
        precision: str = ...,
        cuda_graphs: bool = ...,
        compile: bool = ...,
    ) -> None:
        """Prepare components and build the model; nothing is trained yet.

        `mdata` is the container that was given where its cells are paired and `kinds` is None, else a new one with its `obs` and `uns`.
        Sets, per modality that has no components yet, `layers["counts"]`, `obsm["X_pca"]` or `obsm["X_lsi"]`
        (float32 [n, k]), `obsm["X_pca_further"]` or `obsm["X_lsi_further"]` (float32 [n, m]), and `uns["cvqvae_preprocessing"]`.
        Settings are the fields of `ModelConfig` and `TrainingConfig`, and those arguments of `preprocess` that `presets.PREPROCESSING` names.
        Besides it there are `module` (the networks, a `CrossVQVAE`), `history` (a row per epoch), `modalities` (their names), `config`, `training`, `device`.
        Raises `DataError` for unusable input, `TypeError` for an unknown setting and `ValueError` for a value that it cannot have.

        Parameters
        ----------
        data
            paired cells with raw counts
        preset
            "default", "paper", or one's own
        batch_key
            column of `obs` with batches: the networks are told them, and `default` takes away what a batch adds
        kinds
            modality name -> "rna", "atac", "protein", where not declared
        seed
            of preprocessing, initial weights and training; None: those of one's own preset, or 0
        device
            None: cuda, mps or cpu, whichever is there
        variant
            of Appendix C: "cvqvae", "cvae", "cvqvae-avg", "cvqvae-lin"
        unpaired
            cells that lack a modality: "drop", or "keep" to train on a mosaic
        overrides
            single settings, e.g. `epochs=50`, `n_components=100`, `n_latent=16`"""

    def _build(self, reader: CellReader, drawn: bool = True) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def kinds(self) -> dict[str, str]:
        """Modality name -> what it measures."""

    @property
    def batch_key(self) -> str | None:
        """Column of `obs` that names the batches; None where the model knows none."""

    @property
    def transforms(self) -> dict[str, Components]:
        """Modality name -> the fitted way from counts to components, where it was computed here."""

    @property
    def modality_weights(self) -> dict[str, float]:
        """Modality name -> weight in losses and joint embedding, 1 in the mean; the larger, the more of it follows from the others.

        All 1 with `paper`, and where nothing of one follows from the others. Raises ValueError before `fit`."""

    def fit(
        self, epochs: int | None = None, callbacks: Sequence[Callback] = (), checkpoint: str | Path | None = None, progress: bool = True, processes: int = 1
    ) -> CVQVAE:
        """Train on the cells given to the constructor, or those that are left of them; sets `history`.

        Calling it again starts afresh; a training that fails, or that Ctrl-C stops, changes nothing: with a `checkpoint` the next call goes on from it.
        Warns where cells seem to be paired wrongly, where cells or features are very few, and where they lack a modality by now, which leaves them out
        unless `unpaired="keep"`; raises `DataError` where there are cells that were not given, and `TypeError` for what is no `Callback`.

        Parameters
        ----------
        epochs
            of this training; None: as given to the constructor, or the preset's
        callbacks
            besides the standard ones
        checkpoint
            .safetensors file, written every 10 epochs; continued from where it exists
        progress
            a bar in notebook or terminal
        processes
            that train together: one per GPU, or groups of cores"""

    def latents(self, data: MuData | AnnData | None = None, block: int = 4096) -> dict[str, Latent]:
        """What the model makes of cells, as tensors; a cell that lacks a modality has a joint latent all the same. Warns of new cells without a count.

        Parameters
        ----------
        data
            None: the training cells
        block
            cells at a time

        Returns
        -------
        per modality that is there, and "joint": z, e (float32 [n, d], mapped where counts are on disk) and codes (int64 [n]) on the CPU"""

    def _checked(self, data: MuData | AnnData | None, source: str | None = None) -> MuData: ...
    @overload
    def embed(self, data: MuData | None = None) -> MuData:
        """Write the embeddings into `data` and return it.

        Sets per modality `obsm["X_cvqvae"]` (z as `embed_all` says it, float32 [n, d]), `obsm["X_cvqvae_quantized"]` (e, what decoders read: not moved as z is) and
        `obs["cvqvae_code"]` (category); `data.obsm["X_cvqvae"]` (joint z), `data.obs["cvqvae_code"]` (joint code, where the model has one);
        `data.uns["cvqvae"]` (parameters).
        Cells of one modality alone may come as AnnData. A batch that training has not seen is lined up with the training cells first,
        where batch offsets are learned (`default`); with `paper` it is read as a batch of its own that nothing is known of, and a warning names it.

        Parameters
        ----------
        data
            None: the training cells, `mdata`; new cells go through the training cells' transforms

        Returns
        -------
        the same object"""

    @overload
    def embed(self, data: AnnData) -> AnnData:
        """Write the embeddings into `data` and return it.

        Sets per modality `obsm["X_cvqvae"]` (z as `embed_all` says it, float32 [n, d]), `obsm["X_cvqvae_quantized"]` (e, what decoders read: not moved as z is) and
        `obs["cvqvae_code"]` (category); `data.obsm["X_cvqvae"]` (joint z), `data.obs["cvqvae_code"]` (joint code, where the model has one);
        `data.uns["cvqvae"]` (parameters).
        Cells of one modality alone may come as AnnData. A batch that training has not seen is lined up with the training cells first,
        where batch offsets are learned (`default`); with `paper` it is read as a batch of its own that nothing is known of, and a warning names it.

        Parameters
        ----------
        data
            None: the training cells, `mdata`; new cells go through the training cells' transforms

        Returns
        -------
        the same object"""

    def codes(self, data: MuData | AnnData | None = None) -> pd.DataFrame:
        """The discrete code of every cell.

        Parameters
        ----------
        data
            None: the training cells

        Returns
        -------
        int64 (Int64 where cells lack a modality), index obs_names; a column per modality, and "joint" where the joint latent has codes"""

    def parameters(self) -> dict:
        """Settings as nested dictionaries of plain values, as written to `uns` and `run.json`."""

    def translate(self, data: AnnData | MuData, to: str, source: str | None = None, features: Sequence[str] | None = None) -> AnnData:
        """Predict one modality from another, or from several: normalised values with the target's feature names.

        RNA is log1p of counts per `transforms[to].target_sum`, the median total of the training cells; proteins are centred log-ratios, peaks TF-IDF.
        Where genes are called by ids, their symbols stand in `var["feature_name"]`. Of several modalities, a cell's prediction is the mean of theirs.
        Warns of cells without a count, whose predictions mean nothing.

        Parameters
        ----------
        data
            cells with raw counts of one modality, or of several others than `to`
        to
            name of the modality to predict
        source
            name of the modality of an AnnData; None: found by its kind
        features
            names to predict, or symbols of genes that are called by ids; None: all

        Returns
        -------
        float32 [n, features], `obs` of the cells, `obsm["X_pca"]` or `["X_lsi"]` predicted components, `uns["cvqvae_translation"]` what the values are"""

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write weights, codebooks, preprocessing, settings and a model card; no pickle, and never half a model. Raises ValueError before `fit`.

        Parameters
        ----------
        folder
            created; holds model.safetensors, model.json and README.md
        overwrite
            replace an existing folder"""

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = None) -> CVQVAE:
        """A trained model without its cells, ready to embed and translate others; raises `DataError` for no whole model, `ValueError` for no such device.

        Parameters
        ----------
        folder
            written by `save`
        device
            None: cuda, mps or cpu, whichever is there"""

    def __getstate__(self) -> dict:
        """For `pickle` and `copy.deepcopy`: a MuData cannot be sent, its parts can."""

    def __setstate__(self, state: dict) -> None: ...
