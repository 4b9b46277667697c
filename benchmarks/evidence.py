"""Does the evidence of a table's `grit` runs matter? Probes each of them and writes a section of docs/results.md.

    python benchmarks/evidence.py --table runs/table/table --out runs/evidence --results docs/results.md

takes the folder of a finished `opengrit table`, runs `opengrit probe` on every evaluation of the way `grit`, and puts
necessity, sufficiency and what random boxes do side by side. A probe that is there already is not asked again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from opengrit.evaluation.metrics import Estimate
from opengrit.evaluation.probes import Probe, ProbeScores, probe_scores
from opengrit.runs.folder import RunDir
from pages import replace_section

HEADINGS = (
    "n", "necessity, points", "sufficiency, %", "changes: its boxes grey, %", "changes: random boxes grey, %",
    "accuracy, nothing grey, %", "its boxes grey", "all else grey", "random boxes grey",
)  # fmt: skip


def cells(scores: ProbeScores) -> list[str]:
    """A row of the table, in the order of HEADINGS."""
    shown = [
        scores.necessity,
        scores.sufficiency,
        scores.changed[Probe.OCCLUDE],
        scores.changed[Probe.SHUFFLE],
        scores.accuracy_asked,
        *(scores.accuracy[probe] for probe in (Probe.OCCLUDE, Probe.KEEP, Probe.SHUFFLE)),
    ]
    return [f"{scores.num_probed} of {scores.num_answers}", *(percent(value) for value in shown)]


def percent(value: Estimate) -> str:
    """Hundredths with their interval."""
    if value.value is None or value.low is None or value.high is None:
        return "-"
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def probed(run: Path, out: Path) -> ProbeScores:
    """The scores of an evaluation's probes, asked if they are not there."""
    subprocess.run([sys.executable, "-m", "opengrit", "probe", str(run), "--out", str(out)], check=True)
    return probe_scores(RunDir.open(out).records())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True, help="folder of a finished `opengrit table`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the probes")
    parser.add_argument("--results", type=Path, help="page to put the section into")
    options = parser.parse_args()
    lines = [
        "## Does the evidence matter?",
        "",
        "What a `grit` model pointed at is greyed out, or everything else, or random boxes of the same sizes, and it is asked again "
        "(greedy; 95 % bootstrap intervals over questions; definitions in [probes.md](probes.md)).",
        "",
        "| | " + " | ".join(HEADINGS) + " |",
        "|---" * (len(HEADINGS) + 1) + "|",
    ]
    for run in sorted((options.table / "runs").glob("*/grit/seed-*/eval")):
        model, seed = run.parts[-4], run.parts[-2]
        scores = probed(run, options.out / f"{model}-{seed}")
        lines.append(f"| {model}, {seed.replace('-', ' ')} | {' | '.join(cells(scores))} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.results:
        replace_section(options.results, "evidence", text)


if __name__ == "__main__":
    main()
