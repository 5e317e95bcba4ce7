"""Draws curves as SVG: panels side by side, each with lines that are the mean of several series, and their range."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 520, 340, 48  # of a panel, in pixels
COLOURS = ("#555555", "#0b6fb8", "#c4511d", "#2a8a3e")
Lines = Mapping[str, Sequence[Sequence[float]]]  # by name: series of equal length


def draw_panels(panels: Mapping[str, Lines]) -> str:
    """The SVG of panels by title."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(panels)}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, (title, lines) in enumerate(panels.items()):
        parts.append(f'<g transform="translate({WIDTH * place} 0)">')
        parts += _draw_panel(title, lines)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_panel(title: str, lines: Lines) -> list[str]:
    values = [value for series in lines.values() for one in series for value in one]
    least, greatest = min(values), max(values)
    length = max(len(one) for series in lines.values() for one in series)

    def at(place: int, value: float) -> str:
        x = MARGIN + (WIDTH - 1.5 * MARGIN) * place / max(length - 1, 1)
        y = MARGIN + (HEIGHT - 2 * MARGIN) * (greatest - value) / ((greatest - least) or 1.0)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<text x="{MARGIN}" y="20" font-weight="bold">{escape(title)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = least + (greatest - least) * share
        x, y = at(0, value).split(",")
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - MARGIN // 2}" y2="{y}" stroke="#dddddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    parts.append(f'<text x="{WIDTH // 2}" y="{HEIGHT - 14}" text-anchor="middle">share of the training</text>')
    for place, (name, series) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        columns = list(zip(*series, strict=True))
        upper = [at(x, max(column)) for x, column in enumerate(columns)]
        lower = [at(x, min(column)) for x, column in enumerate(columns)]
        means = [at(x, statistics.fmean(column)) for x, column in enumerate(columns)]
        parts.append(f'<polygon points="{" ".join(upper + lower[::-1])}" fill="{colour}" fill-opacity="0.18"/>')
        parts.append(f'<polyline points="{" ".join(means)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(f'<text x="{WIDTH - 150}" y="{MARGIN + 16 * place}" fill="{colour}">{escape(name)}</text>')
    return parts
