"""Pictures of a profile: what each SM does when, and where the bytes go. Needs matplotlib (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from b200sim.gpus import B200
from profiling import rates
from profiling.replay import Timeline
from profiling.text import OPERANDS

_STORE = "#222222"


def available() -> bool:
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def draw(path: Path, cases: list[tuple[str, dict[str, Any], list[Timeline]]]) -> None:
    """One row per case: SM by time of tile assignment on the left, bytes by operand on the right.

    Times are the model's. The kind of file follows from the name's ending (png, svg, pdf).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(cases), 2, figsize=(13, 4.2 * len(cases)), width_ratios=(2.2, 1), squeeze=False
    )
    for row, (name, figures, timelines) in zip(axes, cases, strict=True):
        _tiles(row[0], name, figures, timelines)
        _bytes(row[1], figures["traffic"])
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _tiles(axis: Any, name: str, figures: dict[str, Any], timelines: list[Timeline]) -> None:
    from matplotlib import colormaps

    labels = sorted({span.label for timeline in timelines for span in timeline.tiles})
    colour = {label: colormaps["tab10"](i % 10) for i, label in enumerate(labels)}
    shown: set[str] = set()
    for timeline in timelines:
        for rank, sm in enumerate(timeline.sms):
            for span in timeline.tiles:
                start, end = rates.microseconds(span.start), rates.microseconds(span.end)
                label = f"loads of group {span.label.strip('[]')}" if span.label not in shown else None
                shown.add(span.label)
                axis.barh(
                    sm, end - start, left=start, height=0.9, color=colour[span.label], label=label, alpha=0.75
                )
            for span in timeline.stores:
                if span.label == str(rank):
                    start, end = rates.microseconds(span.start), rates.microseconds(span.end)
                    axis.barh(sm, end - start, left=start, height=0.35, color=_STORE)
    axis.set_title(
        f"{name}: tiles of each SM (model, {figures['model'].get('kernel_us', 0):.1f} µs; dark: stores)"
    )
    axis.set_xlabel("µs from the first CTA's start")
    axis.set_ylabel("SM")
    axis.set_xlim(left=0)
    axis.set_ylim(-1, B200.sm_count)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)


def _bytes(axis: Any, traffic: dict[str, Any]) -> None:
    kinds = list(traffic["operands"])
    series = (("minimum", "tensors, each byte once"), ("read", "read from L2"), ("into_sms", "into SMs"))
    for i, (key, label) in enumerate(series):
        values = [traffic["operands"][kind][key] / 1e6 for kind in kinds]
        places = [place + (i - 1) * 0.27 for place in range(len(kinds))]
        bars = axis.bar(places, values, width=0.25, label=label)
        axis.bar_label(bars, fmt="%.1f", fontsize=7)
    axis.set_xticks(range(len(kinds)), [OPERANDS.get(kind, kind) for kind in kinds])
    axis.set_ylabel("MB")
    axis.set_title(f"bytes loaded; {traffic['stored'] / 1e6:.1f} MB stored")
    axis.legend(fontsize=7)
