"""Pictures and tables that show what a network does: contact sheets, entropy, scores.

Everything here runs on the host, on NumPy arrays and Pillow images.
"""

import io
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Perceptual colour map from black over purple and orange to cream ("magma"), at equal
# steps; between them colours are interpolated linearly.
_COLOR_MAP = np.array(
    [
        (0, 0, 4),
        (20, 14, 54),
        (59, 15, 112),
        (100, 26, 128),
        (140, 41, 129),
        (183, 55, 121),
        (222, 73, 104),
        (247, 112, 92),
        (254, 159, 109),
        (254, 207, 146),
        (252, 253, 191),
    ],
    np.float64,
)
_INK, _FAINT, _PAPER, _EMPTY = (34, 34, 38), (110, 110, 118), (255, 255, 255), 236


def color_map(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 of any shape [...] -> colours u8[..., 3], dark to bright."""
    position = np.clip(np.nan_to_num(values), 0.0, 1.0) * (len(_COLOR_MAP) - 1)
    anchors = np.arange(len(_COLOR_MAP))
    channels = [np.interp(position, anchors, _COLOR_MAP[:, c]) for c in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def entropy(scores: np.ndarray, *, probabilities: bool = False) -> np.ndarray:
    """Entropy of each pixel's prediction, divided by its largest value log(C).

    Args:
        scores: f[..., C] logits, or probabilities with `probabilities=True`.
    Returns:
        f64[...] in 0 (certain) .. 1 (uniform).
    """
    scores = np.asarray(scores, np.float64)
    if not probabilities:
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores = scores / scores.sum(axis=-1, keepdims=True)
    logs = np.log(np.where(scores > 0, scores, 1.0))  # 0 log 0 = 0
    return -np.sum(scores * logs, axis=-1) / math.log(scores.shape[-1])


def entropy_map(scores: np.ndarray, *, probabilities: bool = False) -> np.ndarray:
    """How unsure a prediction is, as a picture: black certain, cream uniform.

    Args:
        scores: f[H, W, C] as for `entropy`, or f[H, W] the result of `entropy`.
    Returns:
        u8[H, W, 3].
    """
    scores = np.asarray(scores)
    if scores.ndim == 3:
        scores = entropy(scores, probabilities=probabilities)
    return color_map(scores)


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, *, opacity: float = 0.6
) -> np.ndarray:
    """Lays class colours over a photograph.

    Args:
        image: u8[H, W, 3].
        labels: integer class indices [H, W]; other values, such as 255, stay clear.
        palette: u8[C, 3].
        opacity: weight of the colours, 0..1.
    Returns:
        u8[H, W, 3].
    """
    inside = (labels >= 0) & (labels < len(palette))
    colors = palette[np.where(inside, labels, 0)].astype(np.float64)
    weight = opacity * inside[..., None]
    return np.round(image * (1 - weight) + colors * weight).astype(np.uint8)


def classes_present(
    labels: Iterable[np.ndarray], names: Sequence[str], palette: np.ndarray
) -> dict[str, np.ndarray]:
    """{name: colour u8[3]} of the classes that occur in any of the label maps."""
    present = set().union(*(np.unique(one).tolist() for one in labels))
    return {name: palette[i] for i, name in enumerate(names) if i in present}


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray | None]] | Sequence[Mapping[str, np.ndarray]],
    columns: Sequence[str] | None = None,
    *,
    row_titles: Sequence[str] | None = None,
    legend: Mapping[str, Sequence[int]] | None = None,
    cell_width: int | None = None,
) -> Image.Image:
    """Puts pictures into a grid with titles.

    Args:
        rows: one sequence of u8[H, W, 3] pictures per row, or {column title: picture};
            None or a missing title leaves the cell empty.
        columns: column titles; by default the keys of the first row.
        row_titles: shown on the left, one per row.
        legend: {class name: colour}, shown below; see `classes_present`.
        cell_width: pixels of a cell; by default the width of the first picture. Every
            cell has the aspect of the first picture.
    Raises:
        ValueError: there is no picture, or rows and titles differ in length.
    """
    if rows and isinstance(rows[0], Mapping):
        columns = list(rows[0]) if columns is None else columns
        rows = [[row.get(title) for title in columns] for row in rows]
    first = next((cell for row in rows for cell in row if cell is not None), None)
    if first is None:
        raise ValueError("a contact sheet needs at least one picture")
    num_columns = max(len(row) for row in rows)
    if columns is not None and len(columns) != num_columns:
        raise ValueError(f"{len(columns)} column titles for {num_columns} columns")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"{len(row_titles)} row titles for {len(rows)} rows")
    width = cell_width or first.shape[1]
    height = max(1, round(width * first.shape[0] / first.shape[1]))

    text = max(11, min(22, width // 16))
    font, gap, margin = ImageFont.load_default(text), max(4, text // 3), text
    left = margin + _widest(font, row_titles, extra=gap * 2)
    top = margin + (text + gap * 2 if columns is not None else 0)
    total_width = left + num_columns * (width + gap) - gap + margin
    grid_bottom = top + len(rows) * (height + gap) - gap
    names = list(legend or ())
    places, legend_height = _place_legend(names, font, text, total_width - 2 * margin)
    sheet = Image.new(
        "RGB", (total_width, grid_bottom + legend_height + margin), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    middle = top - gap - text // 2
    for j, title in enumerate(columns or ()):
        x = left + j * (width + gap) + width // 2
        fitted = _shorten(title, font, width)
        draw.text((x, middle), fitted, fill=_INK, font=font, anchor="mm")
    for i, row in enumerate(rows):
        y = top + i * (height + gap)
        if row_titles is not None:
            spot = (left - gap * 2, y + height // 2)
            draw.text(spot, row_titles[i], fill=_FAINT, font=font, anchor="rm")
        for j in range(num_columns):
            cell = row[j] if j < len(row) else None
            sheet.paste(_fit(cell, width, height), (left + j * (width + gap), y))
    for name, (x, y) in zip(names, places, strict=True):
        x, y, color = x + margin, y + grid_bottom, tuple(int(v) for v in legend[name])
        draw.rectangle((x, y, x + text, y + text), fill=color, outline=_FAINT)
        spot = (x + text + gap, y + text // 2)
        draw.text(spot, name, fill=_INK, font=font, anchor="lm")
    return sheet


def _widest(font, texts, *, extra):
    """Room for the widest of the texts, 0 without texts."""
    if not texts:
        return 0
    return math.ceil(max(font.getlength(one) for one in texts)) + extra


def _shorten(text, font, width):
    """The text, cut with an ellipsis if it is wider than its cell."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _fit(picture, width, height):
    """A cell of the grid; area averages when it shrinks, plain pixels when it grows."""
    if picture is None:
        return Image.new("RGB", (width, height), (_EMPTY,) * 3)
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BOX)


def _place_legend(names, font, text, width):
    """Positions of the entries in lines of `width` pixels, and the height of all."""
    places, x, y = [], 0, text
    for name in names:
        entry = text + max(4, text // 3) + math.ceil(font.getlength(name)) + text
        if x and x + entry - text > width:
            x, y = 0, y + text + text // 2
        places.append((x, y))
        x += entry
    return places, (y + text if places else 0)


def table_picture(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str
) -> Image.Image:
    """Draws a table as print has it: a title, three rules, no lines between columns.

    Args:
        header: column titles.
        rows: texts, as many in each as columns; the first column stands left, the
            others right.
        title: above the table.
    """
    size, gap = 22, 40
    font, line = ImageFont.load_default(size), 34
    columns = list(zip(header, *rows, strict=True))
    widths = [_widest(font, column, extra=0) for column in columns]
    width = max(sum(widths) + gap * (len(widths) - 1), _widest(font, [title], extra=0))
    picture = Image.new(
        "RGB", (width + 2 * gap, line * (len(rows) + 2) + 2 * gap + size), _PAPER
    )
    draw = ImageDraw.Draw(picture)
    draw.text((gap, gap // 2), title, fill=_INK, font=font)
    top = gap + line
    for i, row in enumerate([header, *rows]):
        y = top + i * line + (size // 2 if i else 0) + line // 2
        x = gap
        for j, (text, wide) in enumerate(zip(row, widths, strict=True)):
            spot = (x, y) if j == 0 else (x + wide, y)
            ink = _INK if i else _FAINT
            draw.text(spot, text, fill=ink, font=font, anchor="rm" if j else "lm")
            x += wide + gap
    bottom = top + (len(rows) + 1) * line + size // 2 + 6
    for y in (top - 4, top + line + 2, bottom):
        draw.line((gap, y, gap + width, y), fill=_INK, width=2)
    return picture


def save_png(image: Image.Image | np.ndarray, path: str | os.PathLike) -> None:
    """Writes a PNG file in one go: readers see the old or the whole new picture.

    Args:
        image: a Pillow image or u8[H, W, 3].
        path: the file; its directory is created if it is not there.
    """
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    write_atomically(path, encoded.getvalue())


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Replaces a file in one go; its directory is created if it is not there."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def text_table(
    names: Sequence[str],
    columns: Mapping[str, Sequence[float | None]],
    *,
    mean: str | None = None,
) -> str:
    """Plain text table of scores per class, in points with one decimal.

    Args:
        names: the classes, one line each.
        columns: {title, e.g. "stage 1": one fraction 0..1 per class}; None and NaN are
            missing values, shown as "-".
        mean: title of a last line with the mean of the values that are there; without
            it there is no such line.
    Returns:
        Lines of equal width without a newline at the end.
    """
    names = list(names)
    columns = {title: list(values) for title, values in columns.items()}
    for title, values in columns.items():
        if len(values) != len(names):
            raise ValueError(
                f"column {title!r}: {len(values)} values, {len(names)} names"
            )
    labels = names if mean is None else [*names, mean]
    first = max(len(label) for label in [*labels, "class"])
    lines = ["class".ljust(first), *(label.ljust(first) for label in labels)]
    for title, values in columns.items():
        cells = [_points(v) for v in values]
        if mean is not None:
            there = [v for v in values if v is not None and not math.isnan(v)]
            cells.append(_points(sum(there) / len(there) if there else None))
        width = max(len(title), *(len(cell) for cell in cells))
        lines = [
            f"{line}  {cell.rjust(width)}"
            for line, cell in zip(lines, [title, *cells], strict=True)
        ]
    rule = "-" * len(lines[0])
    body = lines[1 : len(names) + 1]
    return "\n".join([lines[0], rule, *body, *([rule, lines[-1]] if mean else [])])


def _points(value):
    missing = value is None or math.isnan(value)
    return "-" if missing else f"{100 * value:.1f}"
