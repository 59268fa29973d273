"""Line charts as SVG files that stand alone."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

_LEFT, _TOP, _SIDE = 60, 40, 360
_COLORS = ("#0b6bcb", "#d9480f", "#2f9e44", "#868e96")


def line_chart(title: str, x_name: str, y_name: str, lines: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """An SVG of named lines; both axes run from 0 to 1.

    Example:
        >>> line_chart("Recall", "IoU", "share", {"a run": [(0, 1), (1, 0)]}).count("polyline")
        1
    """
    right, bottom, middle = _LEFT + _SIDE, _TOP + _SIDE, _SIDE / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right + 40}" height="{bottom + 60}" font-family="Arial">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-weight="bold">{escape(title)}</text>',
        f'<text x="{_LEFT + middle}" y="{bottom + 44}" text-anchor="middle">{escape(x_name)}</text>',
        f'<text transform="translate(18 {_TOP + middle})rotate(-90)" text-anchor="middle">{escape(y_name)}</text>',
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y = _LEFT + tick * _SIDE, bottom - tick * _SIDE
        parts.append(f'<path d="M{_LEFT} {y}H{right}M{x} {_TOP}V{bottom}" stroke="#dee2e6"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    for n, ((name, points), color) in enumerate(zip(lines.items(), cycle(_COLORS), strict=False)):
        places = " ".join(f"{_LEFT + x * _SIDE:.2f},{bottom - y * _SIDE:.2f}" for x, y in points)
        parts.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{_LEFT + 8}" y="{_TOP + 18 + 18 * n}" fill="{color}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])
