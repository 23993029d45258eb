# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["GENE_SCALES", "Components", "refuse_constant", "ScaledPCA", "median_total", "RNAComponents", "ProteinComponents"]
from collections.abc import Callable
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

class Components:
    """A fitted way from counts to components; subclasses say how to normalise and how to reduce."""

    kind: str
    slot: str
    inverse_transform: Callable[[np.ndarray], np.ndarray]
    absent: str
    rows: int
    n_components: int
    seed: int
    n_further: int
    feature_names: pd.Index
    fitted: np.ndarray | None
    arrays: dict[str, np.ndarray]
    symbols: dict[str, str]

    def __init__(self, n_components: int = 50, seed: int = 0, n_further: int = 0) -> None:
        """A fitted way from counts to components; subclasses say how to normalise and how to reduce.

        Parameters
        ----------
        n_components
            k; fewer where cells or features do not allow it
        seed
            of the start of LSI; PCA is exact and needs none
        n_further
            m, components behind these, for encoders alone; fewer, without a warning, where there are not so many"""

    def _cap(self, limit: int, name: str, complete: bool = False) -> int:
        """As many components as there can be; a warning says so, but where they hold the features completely, for then nothing is lost."""

    def _axes(self, further: bool) -> np.ndarray:
        """Loadings, with those of the further components where asked, float32 [k or k + m, features]."""

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """Arrays, and plain values for JSON: all that `from_state` needs."""

    @classmethod
    def from_state(cls, arrays: dict[str, np.ndarray], meta: dict) -> Components:
        """The fitted transform that `state` described.

        Parameters
        ----------
        arrays
            of `state`
        meta
            of `state`"""

    def _refuse_unfitted(self) -> None: ...
    @property
    def explained_variance_ratio(self) -> np.ndarray:
        """Share of the (scaled) variance per component, float [k]; raises ValueError before `fit`."""

    @property
    def var(self) -> pd.DataFrame:
        """The features as a table; their symbols in `feature_name` where the names are ids.

        Returns
        -------
        index: feature_names"""

    def fit(self, adata: AnnData, batch: pd.Series | None = None, name: str = "modality") -> Components:
        """Learn from these cells; raises `DataError` when there is nothing to learn from.

        Parameters
        ----------
        adata
            counts in `layers["counts"]` or X, in memory or on disk
        batch
            batch of each cell, for batch-aware feature selection
        name
            how errors call it"""

    def fit_transform(self, adata: AnnData, batch: pd.Series | None = None, name: str = "modality") -> np.ndarray:
        """Learn from these cells and return their components, with fewer passes than `fit` and `transform`; sets `fitted` where there are further ones.

        Parameters
        ----------
        adata
            as for `fit`
        batch
            as for `fit`
        name
            how errors call it

        Returns
        -------
        float32 [n, k]; mapped from a temporary file where the counts are on disk"""

    def transform(self, adata: AnnData, further: bool = False) -> np.ndarray:
        """Components of cells, new or old, with the fitted scaling and loadings; raises ValueError before `fit`.

        Parameters
        ----------
        adata
            cells with counts, in memory or on disk; features matched by name
        further
            the further components, too

        Returns
        -------
        float32 [n, k], or [n, k + m]"""

    def _components(self, counts, positions: np.ndarray, further: bool) -> np.ndarray: ...

def refuse_constant(constant: bool, name: str) -> None:
    """Refuse a modality in which all cells are alike: scaling would blow its rounding up to components.

    Parameters
    ----------
    constant
        is nothing left of the differences but rounding?
    name
        how the error calls the modality

    Returns
    -------
    raises DataError"""

class ScaledPCA(Components):
    """Normalise, scale with clipping, PCA."""

    slot: str
    clip: float
    lost: int

    def normalise(self, counts, features: np.ndarray | None = None) -> np.ndarray | sp.csr_matrix:
        """Counts [n, features] to normalised values, of some features (int) or all; a subclass's."""

    def _learn(self, counts, names: pd.Index, batch: pd.Series | None, name: str, room: Callable | None = None) -> None: ...
    def _scaled(self, counts, positions: np.ndarray) -> np.ndarray: ...
    def _project(self, counts, positions: np.ndarray, further: bool) -> np.ndarray: ...
    def inverse_transform(self, components: np.ndarray) -> np.ndarray:
        """Normalised values that have these components (log1p of counts per target sum, or CLR).

        Parameters
        ----------
        components
            float [n, k]

        Returns
        -------
        float32 [n, features], in the order of `feature_names`"""

def median_total(counts, rows: int = 1024) -> float:
    """Median of the cells' total counts, over the cells that have any.

    Parameters
    ----------
    counts
        [n, genes], in memory or on disk
    rows
        cells per block

    Returns
    -------
    at least 1"""

GENE_SCALES: tuple[str, ...]

class RNAComponents(ScaledPCA):
    """Counts per target sum, log1p, highly variable genes, scale, PCA."""

    kind: str
    n_top_genes: int
    asked_sum: float | None
    target_sum: float | None
    gene_scale: str
    share: float

    def __init__(
        self, n_components: int = 50, seed: int = 0, n_top_genes: int = 2000, target_sum: float | None = None, n_further: int = 0, gene_scale: str = "std"
    ) -> None:
        """Counts per target sum, log1p, highly variable genes, scale, PCA.

        Parameters
        ----------
        n_components
            as for `Components`
        seed
            not used
        n_top_genes
            most variable genes that are kept
        target_sum
            counts that a cell is scaled to; None: the median total of the fitted cells
        n_further
            as for `Components`
        gene_scale
            what a gene is divided by: "std", its standard deviation; "trend", the one that is expected of its mean"""

    def normalise(self, counts, features: np.ndarray | None = None) -> sp.csr_matrix: ...
    def _learn(self, counts, *where) -> None: ...
    def state(self) -> tuple[dict[str, np.ndarray], dict]: ...
    @classmethod
    def from_state(cls, arrays: dict[str, np.ndarray], meta: dict) -> RNAComponents: ...
    def _groups(self, batch: pd.Series | None, n: int) -> np.ndarray:
        """Batch of each cell, int [n]; -1 in a batch of fewer than 20 cells; all 0 where fewer than two are larger."""

    def transform(self, adata: AnnData, further: bool = False) -> np.ndarray:
        """As `Components.transform`; warns where the chosen genes hold a very different share of the counts than in the fitted cells.

        Parameters
        ----------
        adata
            cells with counts, in memory or on disk; genes matched by name
        further
            the further components, too

        Returns
        -------
        float32 [n, k], or [n, k + m]"""

class ProteinComponents(ScaledPCA):
    """Centred log-ratio per cell, scale, PCA."""

    kind: str
    lost: int

    def normalise(self, counts, features: np.ndarray | None = None) -> np.ndarray: ...
