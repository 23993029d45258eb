# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["vote", "worth_of_votes", "LabelTransfer"]
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

def vote(neighbors: np.ndarray, distances: np.ndarray, codes: np.ndarray, n_types: int) -> tuple[np.ndarray, np.ndarray]:
    """The type with the largest weight among neighbours; the first of equals.

    Parameters
    ----------
    neighbors
        positions of reference cells, int [n, k]
    distances
        how far they are, ascending, float [n, k]
    codes
        type of each reference cell, int, 0 to n_types - 1
    n_types
        how many types there are

    Returns
    -------
    type with most votes, int [n]; its share, float [n]"""

def worth_of_votes(odds: np.ndarray, right: np.ndarray, weights: np.ndarray) -> LogisticRegression:
    """Platt's calibration: right and wrong labels have the targets (r + 1) / (r + 2) and 1 / (w + 2), where r and w count them.

    Parameters
    ----------
    odds
        log odds of the shares, float [n]
    right
        whether the label was right, bool [n]
    weights
        how many cells each counts as, float [n]

    Returns
    -------
    probability that a label is right, never falling with the odds"""

class LabelTransfer:
    """Nearest-neighbour labels with calibrated confidence; fitted on a reference, in the manner of scikit-learn."""

    classes_: pd.Index
    codes_: np.ndarray
    search_: NearestNeighbors
    reference_votes_: tuple[np.ndarray, np.ndarray]
    n_neighbors: int
    least_confidence: float
    novelty_quantile: float
    reference_weight: float
    calibration_: LogisticRegression
    limit_: float

    def __init__(self, n_neighbors: int = 15, least_confidence: float = 0.5, novelty_quantile: float = 0.99, reference_weight: float = 50) -> None:
        """Nearest-neighbour labels with calibrated confidence; fitted on a reference, in the manner of scikit-learn.

        Parameters
        ----------
        n_neighbors
            votes per cell
        least_confidence
            below: "unknown"
        novelty_quantile
            of the reference's own distances: farther cells are "unknown"
        reference_weight
            in `calibrate`, the whole reference counts as so many cells"""

    def fit(self, z: np.ndarray, labels: pd.Series | np.ndarray) -> LabelTransfer:
        """Learn the votes' worth and the usual distance; raises `DataError` where there are fewer than 2 labelled cells.

        Parameters
        ----------
        z
            embedding of the reference, float [n, d]
        labels
            its types in the order of z, [n]; cells without one, or with one that says so ("Unknown"), are left out"""

    def calibrate(self, z: np.ndarray, labels: pd.Series | np.ndarray) -> LabelTransfer:
        """Learn the votes' worth again, from these cells and a little from the reference, and from these alone the usual distance: training did not flatter them.
        Raises `DataError` without a labelled cell, or with another number of labels than cells, and ValueError before `fit`.

        Parameters
        ----------
        z
            embedding of labelled cells that the model was not trained on, float [m, d]
        labels
            their types in the order of z, [m]; cells without one are left out"""

    def predict(self, z: np.ndarray, index: pd.Index | None = None) -> pd.DataFrame:
        """Types of new cells; `label` is the best guess for every cell, `unknown` says where not to believe it.
        Warns of rows with NaN, which have no label; raises ValueError before `fit`.

        Parameters
        ----------
        z
            embedding of new cells in the same space, float [m, d]; rows with NaN are of cells that were not measured
        index
            their names

        Returns
        -------
        label, confidence (0 to 1), distance (1: the limit of novelty), unknown (bool)"""
