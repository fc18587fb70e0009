"""From a response map to faces: density peaks, and a window around each.

After Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015, §3.1. It follows Rodriguez, Laio,
"Clustering by fast search and find of density peaks", Science 2014.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.boxes import Floats

DIAGONAL = math.sqrt(2)
"""Distance between diagonal neighbours, in cells."""

FRACTION = 0.5
"""Of the largest response of an image: what responds less is no other face, but a second summit of the same one.

A lower fraction finds more of several faces, but also parts single ones: configs/README.md.
"""


class Peak(NamedTuple):
    """A summit of a response map."""

    row: int
    column: int
    rho: float
    """Its response."""
    sigma: float
    """Distance to the nearest position with a larger response, in cells."""
    d: float
    """Equation (3), √(rho² + sigma²), both divided by their maximum in the map: in [0, √2]."""


def distances(response: npt.ArrayLike, threshold: float = 0.0) -> Floats:
    """The distance from each position to the nearest one with a larger response: sigma of equation (3).

    Equal responses are ordered as one reads: the earlier one counts as larger. So only one position is the highest;
    it gets its largest distance to any position. A position with a larger neighbour is settled at once. Only the few
    others, local maxima, need a search.

    Args:
        response: Finite numbers, ``(H, W)``.
        threshold: Positions whose response is not larger get 0, which saves their search. It changes no other
            distance. The default leaves out the zeros of a ReLU; ``-math.inf`` leaves out nothing.

    Returns:
        Distances in cells, ``(H, W)``.

    Raises:
        ValueError: If the map is empty, not two-dimensional, or not finite.

    Example:
        >>> distances(np.array([[9.0, 0.0, 1.0, 5.0]]))
        array([[3., 0., 1., 3.]])
    """
    response = _checked(response)
    order = np.argsort(-response, axis=None, kind="stable")  # largest first; stable: equal ones as one reads
    ranks = np.empty_like(order)
    ranks[order] = np.arange(order.size)
    ranks = ranks.reshape(response.shape)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(ranks, 1, constant_values=order.size), (3, 3))
    beside = around[..., [0, 1, 1, 2], [1, 0, 2, 1]].min(axis=-1) < ranks
    diagonal = around[..., ::2, ::2].min(axis=(-2, -1)) < ranks
    sigma: Floats = np.select([response <= threshold, beside, diagonal], [0, 1, DIAGONAL], default=np.nan)

    rows, columns = np.divmod(order, response.shape[1])
    from_highest = (rows - rows[0]) ** 2 + (columns - columns[0]) ** 2
    sigma[rows[0], columns[0]] = np.sqrt(from_highest.max())
    for rank in ranks[np.isnan(sigma)]:
        row, column = rows[rank], columns[rank]
        to_larger = (rows[:rank] - row) ** 2 + (columns[:rank] - column) ** 2
        sigma[row, column] = np.sqrt(to_larger.min())
    return sigma


def find_peaks(
    response: npt.ArrayLike, least: float = 0.0, fraction: float = FRACTION, separation: float = 2.0
) -> list[Peak]:
    """The faces of a response map, extreme d first; none if the map's maximum is not positive or below ``least``.

    The paper takes extreme d among all positions. But the slope of a high peak, with rho near 1, has a larger d than
    the summit of a lower one. So only local maxima count here: their sigma is larger than √2. The highest position
    always counts, even on a map that is too small for such a distance. Its d is the largest. Peaks of equal d come as
    one reads.

    Args:
        response: Finite numbers, ``(H, W)``, such as the mean of a ReLU's channels; no negative one is a peak.
        least: The least maximum of a map with a face; it belongs to a network, and is stored with it.
        fraction: The response of a peak is larger than this fraction of the map's maximum, in [0, 1).
        separation: The sigma of a peak is larger than this number of cells; anything below √2 means √2.

    Raises:
        ValueError: If the map is empty, not two-dimensional, or not finite.

    Example:
        >>> find_peaks(np.array([[9.0, 8.0, 1.0, 5.0]]), fraction=0.5)
        [Peak(row=0, column=0, rho=9.0, sigma=3.0, d=1.4142135623730951)]
        >>> [peak.column for peak in find_peaks(np.array([[9.0, 8.0, 1.0, 5.0]]), separation=1)]
        [0, 3]
        >>> find_peaks(np.zeros((4, 4)))
        []
    """
    response = _checked(response)
    highest = response.max()
    if highest <= 0 or not highest >= least:
        return []
    sigmas = distances(response, fraction * highest)
    summits = sigmas > max(separation, DIAGONAL)
    summits.flat[response.argmax()] = True
    largest = max(sigmas.max(), 1)  # 1 matters to a map of one cell only
    peaks = []
    for row, column in np.argwhere(summits).tolist():
        rho, sigma = float(response[row, column]), float(sigmas[row, column])
        peaks.append(Peak(row, column, rho, sigma, math.hypot(rho / highest, sigma / largest)))
    return sorted(peaks, key=lambda peak: peak.d, reverse=True)


def windows(response: npt.ArrayLike, peaks: Sequence[Peak], image_size: tuple[int, int], level: float) -> Floats:
    """A window around each peak, in pixels of the image.

    The map is resized to the image, bilinearly, since its cells are coarse. The peak is the highest pixel of its cell.
    The window is the box around the connected pixels (8 neighbours) above ``level`` times that pixel's response.
    If the response nowhere falls to that level on the way to another face, the window holds both: a higher level parts
    them. The level is the peak's own, so this happens to the lower of two peaks first.

    Args:
        response: Finite numbers, ``(H, W)``; the map covers the whole image.
        peaks: Peaks of that map.
        image_size: Height and width of the image; the map's own size gives windows in cells.
        level: Fraction of a peak's own response, in [0, 1). It belongs to a network: a large one suits broad peaks.

    Returns:
        Boxes ``(len(peaks), 4)``: x0, y0, x1, y1 within the image; x1 and y1 are exclusive.

    Raises:
        ValueError: If the map is unfit, the level is out of range, or the image is smaller than the map.

    Example:
        >>> response = np.array([[0.0, 0, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0]])
        >>> windows(response, find_peaks(response), (3, 4), 0.5)
        array([[1., 1., 3., 2.]])
        >>> windows(response, find_peaks(response), (24, 32), 0.5)
        array([[ 8.,  8., 24., 16.]])
    """
    response = _checked(response)
    (rows, columns), (height, width) = response.shape, image_size
    if not 0 <= level < 1:
        raise ValueError(f"a window's level must be in [0, 1), not {level}")
    if height < rows or width < columns:
        raise ValueError(f"an image ({height} × {width}) must not be smaller than its map ({rows} × {columns})")
    image = cv2.resize(response, (width, height), interpolation=cv2.INTER_LINEAR)
    boxes = np.empty((len(peaks), 4))
    for box, peak in zip(boxes, peaks, strict=True):
        cell = _pixels(peak.row, height, rows), _pixels(peak.column, width, columns)
        above = image > level * image[cell].max()
        _, components, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
        x, y, w, h, _ = stats[components[cell].flat[image[cell].argmax()]]
        box[:] = x, y, x + w, y + h
    return boxes


def _pixels(cell: int, pixels: int, cells: int) -> slice:
    """The pixels of an axis that a cell covers, partly covered ones too."""
    return slice(cell * pixels // cells, -(-(cell + 1) * pixels // cells))


def _checked(response: npt.ArrayLike) -> Floats:
    """A response map as float64; what is not a map of finite numbers is refused."""
    response = np.asarray(response, dtype=np.float64)
    if response.ndim != 2 or not response.size:
        raise ValueError(f"a response map must be (H, W) and not empty, not {response.shape}")
    if not np.isfinite(response).all():
        raise ValueError("a response map must be finite, but this one holds NaN or infinity")
    return response
