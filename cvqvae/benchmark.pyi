# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["COLUMNS", "VIEWS", "attempt", "scores_of", "failure", "run_benchmark", "Comparison", "computed", "with_shared", "kept_results"]
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
import numpy as np
import pandas as pd
from mudata import MuData
from .baselines import Method, Result
from .ground_truth import Truth
from .kept import Plan

def attempt(method: str, seed: int, mdata: MuData, plan: Plan, stem: Path | None) -> Result | str:
    """A method's result for one seed, kept or new.

    Parameters
    ----------
    method
        in `METHODS`
    seed
        of the method
    mdata
        after `preprocess`
    plan
        limits and options of the comparison
    stem
        where the result is kept; None: nowhere

    Returns
    -------
    the result, or why there is none"""

COLUMNS: list[str]
VIEWS: tuple[str, ...]

def scores_of(result: Result, truth: Truth, seed: int = 0, **evaluation) -> pd.DataFrame:
    """All scores of one result, and what it cost.

    Parameters
    ----------
    result
        of `fit_method`
    truth
        what is known about the cells
    seed
        of the measures
    evaluation
        of `score_embedding`

    Returns
    -------
    columns view, metric, group, value, reason"""

def failure(reason: str) -> pd.DataFrame:
    """The rows of a method without a result.

    Parameters
    ----------
    reason
        why there is no result

    Returns
    -------
    columns view, metric, group, value, reason"""

def run_benchmark(
    mdata: MuData,
    methods: Sequence[str] = ("cvqvae",),
    seeds: Sequence[int] = (0, 1, 2, 3),
    out: str | Path = "benchmark",
    report: Callable = lambda line: None,
    results: str | Path | None = None,
    peer_seeds: Sequence[int] | None = None,
    workers: int = 1,
    dask: str | None = None,
    *,
    batch_key: str | None = ...,
    labels_key: str | None = ...,
    max_seconds: float | None = ...,
    epochs: int | None = ...,
    options: dict = ...,
    evaluation: dict = ...,
    ignore_labels: tuple = ...,
    max_scored: int | None = ...,
) -> pd.DataFrame:
    """Fit and score every method for every seed; an interrupted run is continued where it stopped.

    A method that seeds do not change is run for the first seed only. Of many cells a part is scored (`max_scored` of `Plan`), the same for
    every method and seed; `report` is told. Writes `scores.csv` to `out`. Raises `DataError` for an unknown name,
    and `TypeError` for options and metrics whose content cannot be told.

    Parameters
    ----------
    mdata
        paired cells with counts; components are computed where there are none
    methods
        in `METHODS`; "raw" and "random" are always added
    seeds
        of the methods that a seed changes
    out
        folder of `scores.csv`
    report
        told of each row as it is done, e.g. `print`
    results
        folder where results are kept; None: `out/results`
    peer_seeds
        of methods that are not of this package; None: `seeds`
    workers
        jobs at a time, each in a process of its own
    dask
        address of a Dask scheduler whose workers take the jobs
    plan
        fields of `Plan`

    Returns
    -------
    rows: method, seed, view, metric, group, value, reason"""

class Comparison:
    """The cells, what is known about them, and where results are kept."""

    mdata: MuData
    truth: Truth
    plan: Plan
    folder: Path
    scored: np.ndarray
    identity: str
    truth_hash: str
    scored_here: bool
    added: dict[str, Method]

    def __init__(self, mdata: MuData, truth: Truth, plan: Plan, folder: Path) -> None:
        """The cells, what is known about them, and where results are kept.

        Parameters
        ----------
        mdata
            after `preprocess`
        truth
            what is known about the cells that are scored
        plan
            what is compared, and how it is scored
        folder
            results are kept here"""

    def stem(self, method: str, seed: int) -> Path:
        """Where a result is kept, without suffix."""

    def row(self, method: str, seed: int) -> pd.DataFrame:
        """Scores of one method and seed, kept or new, or its failure; columns view, metric, group, value, reason."""

    def scores(self, result: Result, seed: int) -> pd.DataFrame:
        """What `scores_of` says of the cells that are scored."""

    def __getstate__(self) -> dict:
        """For a worker: a MuData cannot be sent, its parts can."""

    def __setstate__(self, state: dict) -> None: ...
    def kept_row(self, method: str, seed: int) -> pd.DataFrame | None:
        """Scores that are kept, together with their result."""

    def rows(self, jobs: list[tuple[str, int]], workers: int = 1, dask: str | None = None) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
        """The rows of many jobs, in the order in which they are done.

        Parameters
        ----------
        jobs
            methods and seeds
        workers
            processes
        dask
            address of a scheduler

        Returns
        -------
        of `row`"""

def computed(comparison: Comparison, method: str, seed: int, result: Result | None) -> tuple[Result | str, pd.DataFrame | None]:
    """What a worker does; it writes nothing.

    Parameters
    ----------
    comparison
        the cells and what is known about them
    method
        in `METHODS`
    seed
        of the method
    result
        where it is kept already

    Returns
    -------
    the result, or why there is none; its row, None where it is scored by who asked"""

def with_shared(scores: pd.DataFrame) -> pd.DataFrame:
    """Add the score over those metrics that no method of a view lacks.

    Parameters
    ----------
    scores
        rows: method, seed, view, metric, group, value, reason

    Returns
    -------
    the same, and `score_shared` per method, seed and view"""

def kept_results(
    mdata: MuData,
    methods: Sequence[str],
    seed: int = 0,
    results: str | Path = "benchmark/results",
    *,
    batch_key: str | None = ...,
    labels_key: str | None = ...,
    max_seconds: float | None = ...,
    epochs: int | None = ...,
    options: dict = ...,
    evaluation: dict = ...,
    ignore_labels: tuple = ...,
    max_scored: int | None = ...,
) -> dict[str, Result]:
    """The kept results of one seed; a method that seeds do not change is kept under the first seed alone.

    Parameters
    ----------
    mdata
        as given to `run_benchmark`
    methods
        in `METHODS`
    seed
        of the methods that a seed changes
    results
        folder where results are kept
    plan
        fields of `Plan`, as given to `run_benchmark`

    Returns
    -------
    method -> result; what failed or never ran is left out"""
