# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["CellReader", "widths_of", "batch_categories", "set_anchors"]
from dataclasses import dataclass, field
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from .batches import CellData
from .components import Components
from .model import CrossVQVAE

@dataclass
class CellReader:
    """What a model knows about its inputs."""

    kinds: dict[str, str]
    widths: tuple[int, ...]
    transforms: dict[str, Components]
    batch_key: str | None = None
    batches: list[str] = field(default_factory=list)
    anchors: dict[str, np.ndarray] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    leading: tuple[int, ...] | None = None
    known: dict[str, tuple[pd.Index, list[np.ndarray]]] = field(default_factory=dict)

    def __post_init__(self): ...
    def components(self, adata: AnnData, name: str, fitted: bool = False) -> np.ndarray:
        """Components of cells as they are; raises `DataError` where the model was built for others.

        Parameters
        ----------
        adata
            cells of one modality
        name
            of the modality
        fitted
            training cells, or some of them: as `remember` kept them

        Returns
        -------
        float32 [n, k]; not a copy where it need not be"""

    def remember(self, mdata: MuData) -> CellReader:
        """Keep the components of the training cells, without a copy, under the names of the cells.

        Parameters
        ----------
        mdata
            the training cells, after `preprocess`

        Returns
        -------
        the same; sets `known`"""

    def knows(self, adata: AnnData, name: str) -> bool:
        """Are they among the training cells, all of them, in any order?

        Parameters
        ----------
        adata
            cells
        name
            of their modality"""

    def covariate(self, labels: pd.Series | None) -> torch.Tensor | None:
        """What the networks are told about the batch.

        Parameters
        ----------
        labels
            batch of each cell

        Returns
        -------
        one-hot, float32 [n, batches]; None where training had a single batch"""

    def labels_of(self, data: MuData | AnnData) -> pd.Series | None:
        """The batch of each cell; raises `DataError` where the column is not there.

        Parameters
        ----------
        data
            any cells

        Returns
        -------
        str [n], index: cell names; None where the model knows no batches"""

    def groups(self, data: MuData, fitted: bool = False) -> list[tuple[np.ndarray, CellData]]:
        """Cells by what was measured in them; the complete ones first.

        Parameters
        ----------
        data
            any cells
        fitted
            the container of the training cells, whatever has become of it

        Returns
        -------
        per group: rows in the modalities (-1: not there) and in `data`, int64 [n, M + 1]; components"""

    def _group(self, cells: np.ndarray, rows: np.ndarray, by_name: dict[str, np.ndarray], covariate) -> tuple[np.ndarray, CellData]: ...
    def training_groups(self, mdata: MuData, unpaired: str = "drop") -> list[CellData]:
        '''The training cells by groups, the complete ones first; raises `DataError` where others are among them, or fewer than two are complete.

        Parameters
        ----------
        mdata
            the container of the training cells
        unpaired
            cells that lack a modality by now: "drop", with a warning, or "keep"'''

    def refuse_renamed(self, data: MuData) -> None:
        """Refuse modalities that the model knows under another name: they would be passed over.

        Parameters
        ----------
        data
            cells of any modalities

        Returns
        -------
        raises DataError"""

    def name_of(self, adata: AnnData) -> str:
        """What the model calls the modality of these cells, by their kind.

        Parameters
        ----------
        adata
            cells of one modality

        Returns
        -------
        raises DataError"""

    def match(self, data: MuData) -> pd.DataFrame:
        """How the features of cells fit those of the model, see `matched_names`.

        Parameters
        ----------
        data
            cells of any of the modalities

        Returns
        -------
        index: modality; features of the model, found here, missing here, extra here"""

    def state(self) -> tuple[dict[str, torch.Tensor], dict]:
        """All that `from_state` needs.

        Returns
        -------
        arrays by name; plain values"""

    @classmethod
    def from_state(cls, arrays: dict[str, torch.Tensor], about: dict) -> CellReader:
        """The reader that `state` described; raises `DataError` for arrays that do not belong to its features.

        Parameters
        ----------
        arrays
            of a model, all of them
        about
            of a model"""

def widths_of(mdata: MuData, n_further: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many components there are.

    Parameters
    ----------
    mdata
        the training cells, after `preprocess`
    n_further
        components behind the leading ones, at most

    Returns
    -------
    per modality all that an encoder reads; the leading ones"""

def batch_categories(data: MuData, batch_key: str) -> list[str]:
    """The batches of the training cells, sorted; raises `DataError` for a column that is none of batches.

    Parameters
    ----------
    data
        the training cells
    batch_key
        column of `obs`"""

def set_anchors(reader: CellReader, module: CrossVQVAE, cells: CellData, max_cells: int = 2000) -> None:
    """Keep components of training cells without the offsets of their batches, as if they came from an unknown one.

    Parameters
    ----------
    reader
        changed in place: `anchors` and `scales`
    module
        trained
    cells
        complete training cells
    max_cells
        a random subset of larger data"""
