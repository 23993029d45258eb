# Made by `make export` from the module of this name: edit its notebook.
__all__ = ["Explorer", "explore"]
import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import HTML
from mudata import MuData
from .explorer_data import Explored, FeatureReader
from .explorer_picture import MapFrame
from .integration import CVQVAE

class Explorer:
    """Integrated cells in a notebook: `picture` and `about` answer, `widget` asks; made by `explore`."""

    mdata: MuData
    model: CVQVAE | None
    labels_key: str | None
    batch_key: str | None
    cells: Explored
    coordinates: np.ndarray
    groupings: dict[str, pd.Series]
    source: str | None
    shown: dict[str, dict[str, str]]
    asked: dict[str, dict[str, str]]
    frame: MapFrame
    colour: widgets.Combobox
    grouping: widgets.Dropdown
    group: widgets.Dropdown
    image: widgets.Image
    text: widgets.HTML
    said: widgets.Label

    def __init__(self, mdata: MuData, model: CVQVAE | None, labels_key: str | None = None, batch_key: str | None = None, seed: int = 0) -> None:
        """Integrated cells in a notebook: `picture` and `about` answer, `widget` asks; made by `explore`.

        Parameters
        ----------
        mdata
            after `CVQVAE.embed`; a UMAP in `obsm["X_umap"]` is used
        model
            for predictions
        labels_key
            column of `obs` with cell types
        batch_key
            column of `obs`
        seed
            of the UMAP"""

    def markers(self, grouping: str) -> pd.DataFrame:
        """Markers of every group in every modality, computed once.

        Parameters
        ----------
        grouping
            of `groupings`

        Returns
        -------
        of `group_markers`"""

    def reader(self, modality: str) -> FeatureReader:
        """Values of a modality's features, made once.

        Parameters
        ----------
        modality
            its name"""

    def chosen(self, grouping: str | None, group: str | None) -> np.ndarray:
        """The cells of a group; raises `DataError` where there is no such group.

        Parameters
        ----------
        grouping
            of `groupings`; None: all cells
        group
            None: all cells

        Returns
        -------
        bool [n]"""

    def values(self, colour: str) -> pd.Series:
        """What the cells are coloured by; raises `DataError` for an unknown name.

        Parameters
        ----------
        colour
            a grouping, a column of `obs`, "modality:feature", or a feature

        Returns
        -------
        group or number of each cell [n]"""

    def picture(self, colour: str, grouping: str | None = None, group: str | None = None) -> bytes:
        """The map, coloured by one thing, with the selected cells in colour.

        Parameters
        ----------
        colour
            see `values`
        grouping
            of the selected cells
        group
            of that grouping; None: all cells

        Returns
        -------
        PNG"""

    def about(self, grouping: str, group: str, most: int = 8) -> dict[str, pd.DataFrame]:
        """Tables on the cells of a group.

        Parameters
        ----------
        grouping
            of `groupings`
        group
            of that grouping
        most
            rows of each table

        Returns
        -------
        title -> table"""

    @property
    def widget(self) -> widgets.Widget:
        """The fields, the picture and the tables; made once."""

    def _build(self) -> widgets.Widget: ...
    def static(self) -> HTML:
        """Picture and tables of what is selected, without widgets."""

    def page(self, height: int = 700, **choices) -> HTML:
        """The page of `export_explorer` in a frame of the notebook.

        Parameters
        ----------
        height
            pixels
        choices
            features, most_features, title: see `explorer_content`"""

def explore(data: CVQVAE | MuData, labels_key: str | None = None, batch_key: str | None = None, model: CVQVAE | None = None, seed: int = 0) -> Explorer:
    """Explore integrated cells; those of a model are embedded first, where it has not done so since it was trained (see `CVQVAE.embed`). Raises `DataError`.

    Parameters
    ----------
    data
        a trained model with its cells, or cells after `CVQVAE.embed`
    labels_key
        column of `obs` with cell types
    batch_key
        column of `obs`; None: the model's
    model
        for predictions, where `data` is cells
    seed
        of the UMAP

    Returns
    -------
    shown by the notebook when it ends a cell"""
