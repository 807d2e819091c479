"""Small plots as inline SVG: lines, stacked bars; no script, nothing fetched."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]
Scale = Callable[[float], float]
COLOURS = ("#2563eb", "#dc2626", "#16a34a", "#d97706", "#7c3aed", "#0891b2", "#4b5563", "#db2777")
_WIDTH, _HEIGHT = 760.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 740.0, 34.0, 250.0
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The frame of a plot: words and marks."""

    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


def line_plot(axes: Axes, lines: Mapping[str, Points]) -> str:
    """Return a plot of lines by name; the ticks' ends are the ends of the axes."""
    x, y = scales(axes)
    drawn = [
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{_joined(line, x, y)}"/>'
        for line, colour in zip(lines.values(), _colours(), strict=False)
    ]
    return _svg(axes, [*_frame(axes, x, y), *drawn, *_legend(lines)])


def stacked_bars(axes: Axes, layers: Mapping[str, Points]) -> str:
    """Return bars of width 1 at each x, the layers on top of each other."""
    x, y = scales(axes)
    base: dict[float, float] = {}
    drawn: list[str] = []
    for layer, colour in zip(layers.values(), _colours(), strict=False):
        for at, value in layer:
            low = base.get(at, 0.0)
            base[at] = low + value
            drawn.append(_rect(x(at), y(low + value), x(at + 1) - x(at), y(low), colour))
    return _svg(axes, [*_frame(axes, x, y), *drawn, *_legend(layers)])


def horizontal_bars(title: str, unit: str, bars: Sequence[tuple[str, float, str]]) -> str:
    """Return a bar for each (name, value, note), longest scale first."""
    most = max((value for _, value, _ in bars), default=0.0) or 1.0
    height = 50 + 26 * len(bars)
    parts = [_text(10, 20, f"{title} ({unit})", size=14, weight="bold")]
    for row, (name, value, note) in enumerate(bars):
        top = 36 + 26 * row
        width = 430 * value / most
        colour = COLOURS[1] if note else COLOURS[0]
        parts += [
            _text(205, top + 14, name, anchor="end"),
            _rect(212, top, width, top + 18, colour),
            _text(218 + width, top + 14, f"{value:,.0f} {note}".rstrip()),
        ]
    return _document(height, title, parts)


def scales(axes: Axes) -> tuple[Scale, Scale]:
    """Return the functions from values to places; the ticks' extremes span the frame."""
    return (
        _scale([tick.at for tick in axes.x_ticks], _LEFT, _RIGHT),
        _scale([tick.at for tick in axes.y_ticks], _BOTTOM, _TOP),
    )


def _scale(places: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(places, default=0.0), max(places, default=1.0)
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / span


def round_ticks(most: float) -> list[Tick]:
    """Return about five round marks from 0 to at least `most` (steps of 1, 2 or 5 x 10^n)."""
    rough = max(most, 1e-9) / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    size = step * magnitude
    count = math.ceil(most / size - 1e-9) or 1
    return [Tick(number * size, f"{number * size:,.6g}") for number in range(count + 1)]


def log_ticks(low: float, high: float) -> list[Tick]:
    """Return marks at powers of ten, as logarithms, around positive values."""
    first = math.floor(math.log10(low)) if low > 0 else 0
    last = max(first + 1, math.ceil(math.log10(high)) if high > 0 else 1)
    return [Tick(float(power), f"{10.0**power:g}") for power in range(first, last + 1)]


def _colours() -> Sequence[str]:
    return COLOURS * 4


def _joined(line: Points, x: Scale, y: Scale) -> str:
    return " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line)


def _frame(axes: Axes, x: Scale, y: Scale) -> Iterator[str]:
    for tick in axes.y_ticks:
        yield _line(_LEFT, y(tick.at), _RIGHT, y(tick.at))
        yield _text(_LEFT - 8, y(tick.at) + 4, tick.label, anchor="end")
    for tick in axes.x_ticks:
        yield _line(x(tick.at), _BOTTOM, x(tick.at), _BOTTOM + 5)
        yield _text(x(tick.at), _BOTTOM + 18, tick.label, anchor="middle")
    yield _text(_LEFT, 20, axes.title, size=14, weight="bold")
    yield _text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, axes.x_label, anchor="middle")
    yield (
        f'<text transform="translate(16 {(_TOP + _BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle" font-size="11">{escape(axes.y_label)}</text>'
    )


def _legend(series: Mapping[str, Points]) -> Iterator[str]:
    if len(series) < 2:
        return
    at = _LEFT + 260
    for name, colour in zip(series, _colours(), strict=False):
        yield _rect(at, 12, 10, 22, colour)
        yield _text(at + 14, 21, name)
        at += 30 + 6.5 * len(name)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#d1d5db"/>'


def _rect(x: float, top: float, width: float, bottom: float, colour: str) -> str:
    height = max(bottom - top, 0.0)
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{top:.1f}" {size} fill="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 11, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _svg(axes: Axes, parts: Sequence[str]) -> str:
    return _document(_HEIGHT, axes.title, parts)


def _document(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" '
        f'font-family="system-ui, sans-serif" fill="#111827" role="img" '
        f'aria-label="{escape(title, quote=True)}">'
        f'<rect width="{_WIDTH:.0f}" height="{height:.0f}" fill="#ffffff"/>'
        + "\n".join(parts)
        + "</svg>"
    )
