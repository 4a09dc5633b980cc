"""Draws the figure of a benchmark: times, stages, memory and sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, PLAIN, THEIRS = "#1f5fa8", "#8a8f98", "#d9822b"
INK, FAINT = "#22262b", "#d5d8dc"
ROW_HEIGHT, WIDTH = 3.1, 11.0  # inches

Panel = tuple[str, Callable[[Axes], None]]


def draw(content: Mapping, path: Path) -> None:
    """Draws a report's content into a PNG; without times, draws nothing."""
    panels = _panels(content)
    if not panels:
        return
    num_rows = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * num_rows + 0.5), layout="constrained", dpi=150)
    axes = figure.subplots(num_rows, 2, squeeze=False).ravel()
    for ax, (title, paint) in zip(axes, panels, strict=False):
        ax.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        _make_quiet(ax)
        paint(ax)
    for ax in axes[len(panels) :]:
        ax.remove()
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)
    figure.suptitle(_caption(content), fontsize=8, color=INK, x=0.01, ha="left")
    figure.savefig(path)


def _panels(content: Mapping) -> list[Panel]:
    inference, training, evaluation = (
        content.get(part, {}) for part in ("inference", "training", "evaluation")
    )
    panels: list[Panel] = []

    def add(title: str, paint: Callable, values: Mapping | None, *how: object) -> None:
        if values:
            panels.append((title, lambda ax: paint(ax, values, *how)))

    rises, rises_of_steps = (_rises(part.get("memory", {})) for part in (inference, training))
    add("Seconds per image (log)", _bars, inference.get("medians"), "{:.3g} s", True)
    add("Memory of one prediction, MiB (log)", _bars, rises, "{:,.0f}", True)
    add("Stages of our prediction, seconds", _stages, inference.get("stages", {}).get("medians"))
    for name, points in inference.get("sweep_medians", {}).items():
        add(f"Seconds per image by {name}", _line, points)
    for stage in ("box", "mask"):
        of_peers = content.get(f"{stage}_stage", {}).get("medians")
        add(f"Training step of the {stage} stage, seconds", _bars, of_peers, "{:.3g} s")
    steps = training.get("medians")
    add("Variants of that step, seconds", _bars, steps, "{:.3g} s")
    add("Memory of a training step, MiB", _bars, rises_of_steps, "{:,.0f}")
    count = content["settings"]["evaluated_images"]
    add(f"PQ of {count} images, seconds", _bars, evaluation.get("medians"), "{:.3g} s")
    return panels


def _caption(content: Mapping) -> str:
    machine, settings = content["machine"], content["settings"]
    height, width = settings["size"]
    return (
        f"{machine['gpu'] or machine['processor']}, {machine['threads']} threads · {height}×{width}"
        f" · {settings['kept']} queries kept · medians of {settings['repeats']} interleaved runs"
    )


def _make_quiet(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.tick_params(labelsize=8, colors=INK, length=0)
    ax.set_axisbelow(True)


def _color(name: str) -> str:
    if name in ("transformers", "transformers detector", "detectron2", "hotcoco"):
        return THEIRS
    return PLAIN if "plain" in name else OURS


def _bars(ax: Axes, values: Mapping[str, float], label: str, log: bool = False) -> None:
    """Draws horizontal bars, the first on top, each with its figure."""
    names = list(values)
    bars = ax.barh(names, values.values(), color=[_color(name) for name in names], height=0.66)
    ax.bar_label(bars, [label.format(v) for v in values.values()], padding=4, fontsize=8, color=INK)
    ax.set_ylim(max(len(names), 5) - 0.5, -0.5)
    most = max(values.values())
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        least = min(values.values())
        ax.set_xlim(least / 2, most * (most / least) ** 0.25 * 1.5)
    else:
        ax.set_xlim(0, most * 1.18)
    ax.xaxis.grid(True, color=FAINT, linewidth=0.6)


def _stages(ax: Axes, seconds: Mapping[str, float]) -> None:
    total = sum(seconds.values()) or 1.0
    bars = ax.barh(
        [s.replace("_", " ") for s in seconds], seconds.values(), color=OURS, height=0.66
    )
    labels = [f"{s:.3f} s, {100 * s / total:.0f} %" for s in seconds.values()]
    ax.bar_label(bars, labels, padding=4, fontsize=8, color=INK)
    ax.invert_yaxis()
    ax.set_xlim(0, max(seconds.values()) * 1.35 or 1.0)
    ax.xaxis.grid(True, color=FAINT, linewidth=0.6)


def _line(ax: Axes, points: Mapping[str, float]) -> None:
    """Draws a point for each value of a sweep, evenly spaced, with its figure."""
    places = range(len(points))
    ax.plot(places, points.values(), color=OURS, marker="o", linewidth=1.6, markersize=5)
    for place, seconds in zip(places, points.values(), strict=True):
        ax.annotate(
            f"{seconds:.3g}",
            (place, seconds),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
    ax.set_xticks(places, points)
    ax.set_xlim(-0.4, len(points) - 0.6)
    ax.set_ylim(0, max(points.values()) * 1.2)
    ax.yaxis.grid(True, color=FAINT, linewidth=0.6)


def _rises(memory: Mapping[str, Mapping | None]) -> dict[str, float]:
    """Returns the rises in MiB, without killed processes and rises of zero."""
    return {name: peak["rise"] for name, peak in memory.items() if peak and peak["rise"] > 0}
