# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["SCHEDULES", "TrainingConfig", "learning_rate_factor", "Trainer", "forward_terms", "has_route", "named_means"]
from collections.abc import Callable, Sequence
from dataclasses import dataclass
import pandas as pd
import torch
from torch import Tensor
from .batches import CellData
from .callbacks import Callback
from .model import CrossVQVAE, Output

@dataclass(frozen=True)
class TrainingConfig:
    """Every choice about the training; the defaults are the paper's (section 4.2) or its script's."""

    epochs: int = 200
    batch_size: int = 1024
    learning_rate: float = 0.0001
    schedule: str = "cosine"
    schedule_epochs: int = 40
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    validation_fraction: float = 0.0
    patience: int | None = None
    kmeans_codes: bool = False
    precision: str = "float32"
    cuda_graphs: bool = True
    compile: bool = False
    seed: int = 0

    def __post_init__(self): ...

SCHEDULES: dict[str, Callable[[float, int, TrainingConfig], float]]

def learning_rate_factor(step: int, steps_per_epoch: int, config: TrainingConfig) -> float:
    """The schedule in closed form, so that a resumed run needs nothing but the step.

    Parameters
    ----------
    step
        optimiser steps done
    steps_per_epoch
        optimiser steps of an epoch
    config
        schedule and epochs

    Returns
    -------
    factor of `config.learning_rate`, between 0 and 1"""

class Trainer:
    """Trains a `CrossVQVAE` on `CellData`; attributes are the state that callbacks see and checkpoints keep."""

    model: CrossVQVAE
    train_rows: Tensor
    val_rows: Tensor
    history: list[dict[str, float]]
    row: dict[str, float]
    learning_rate: float
    output: Output
    others: list[CellData]
    config: TrainingConfig
    device: torch.device
    train_data: CellData
    val_data: CellData | None
    epoch: int
    step: int
    stopped: bool
    optimizer: torch.optim.Optimizer
    forward: Callable
    recorded: bool
    update: Callable
    callbacks: list[Callback]
    batch_losses: Tensor
    terms: dict[str, Tensor]

    def __init__(
        self,
        model: CrossVQVAE,
        data: CellData,
        config: TrainingConfig = TrainingConfig(),
        callbacks: Sequence[Callback] = (),
        device: str | torch.device | None = None,
        others: Sequence[CellData] = (),
    ) -> None:
        """Trains a `CrossVQVAE` on `CellData`; attributes are the state that callbacks see and checkpoints keep.

        Parameters
        ----------
        model
            trained in place
        data
            complete cells; a validation part is split off by the configuration
        callbacks
            besides the standard ones
        device
            None: chosen by `choose_device`
        others
            groups of cells that lack a modality"""

    @property
    def steps_per_epoch(self) -> int: ...
    def fit(self) -> Trainer:
        """Run the remaining epochs; raises `DivergedError` when the loss stops being finite.
        After an error, or Ctrl-C, another call goes on with the epoch that it was in."""

    def run_epoch(self) -> None:
        """One pass over the training cells, the validation loss, and a row of history."""

    def validate(self) -> dict[str, float]:
        """Loss terms of the held-out cells in eval mode, in batches as large as those of the training; empty without any."""

    def history_frame(self) -> pd.DataFrame:
        """One row per epoch: loss terms (`train_`, `val_`), codes used, learning rate, seconds."""

    def train_step(self, batch: CellData, others: Sequence[CellData] = ()) -> dict[str, Tensor]:
        """Set the learning rate and update the weights; returns the detached loss terms."""

    def part_terms(self, batch: CellData) -> dict[str, Tensor]:
        """Loss terms of a batch; with several processes, of this one's part, by its share."""

    def compute_terms(self, batch: CellData) -> dict[str, Tensor]:
        """Loss terms of a batch, in the configured precision; keeps the model's output for callbacks."""

def forward_terms(model: CrossVQVAE, inputs: list[Tensor | None], batch: Tensor | None) -> tuple[Output, dict[str, Tensor]]:
    """All that a step computes before the gradient.

    Parameters
    ----------
    model
        that is trained
    inputs
        components per modality, float32 [n, k]; None: not measured in these cells
    batch
        one-hot covariate, float32 [n, b]

    Returns
    -------
    what the model made of the cells, and the terms of its loss"""

def has_route(model: CrossVQVAE, cells: CellData) -> bool:
    """Is there anything that these cells can be trained on?

    Parameters
    ----------
    model
        that is trained
    cells
        a group that may lack modalities"""

def named_means(terms: dict[str, Tensor], values: Tensor, sizes: list[int], prefix: str) -> dict[str, float]:
    '''Means over the cells of an epoch.

    Parameters
    ----------
    terms
        gives the names
    values
        float [batches, terms]
    sizes
        cells per batch
    prefix
        "train_" or "val_"'''
