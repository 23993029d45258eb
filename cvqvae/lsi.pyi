# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["depth_correlation", "ATACComponents"]
from collections.abc import Callable
import numpy as np
import pandas as pd
from .components import Components

def depth_correlation(components: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """How much each component follows the sequencing depth.

    Parameters
    ----------
    components
        float [n, k]
    depth
        counts per cell, [n]

    Returns
    -------
    Pearson correlation with log depth, float [k]"""

class ATACComponents(Components):
    """TF-IDF, truncated SVD, unit variance per component, standardised per cell (LSI)."""

    kind: str
    slot: str
    absent: str
    drop_depth_components: bool
    passes: int

    def __init__(self, n_components: int = 50, seed: int = 0, drop_depth_components: bool = False, passes: int = 12, n_further: int = 0) -> None:
        """TF-IDF, truncated SVD, unit variance per component, standardised per cell (LSI).

        Parameters
        ----------
        n_components
            as for `Components`
        seed
            of the random start
        drop_depth_components
            leave out components that follow the depth
        passes
            over the cells, of `right_singular_vectors`
        n_further
            as for `Components`"""

    def _learn(self, counts, names: pd.Index, batch: pd.Series | None, name: str, room: Callable | None = None) -> np.ndarray | None: ...
    def _project(self, counts, positions: np.ndarray, further: bool) -> np.ndarray: ...
    def inverse_transform(self, components: np.ndarray) -> np.ndarray:
        """TF-IDF values predicted from components by least squares, not below 0.

        Parameters
        ----------
        components
            float [n, k]

        Returns
        -------
        float32 [n, peaks], in the order of `feature_names`"""
