"""What each part of the default recipe is worth: short trainings that differ in one thing, scored alike.

Every variant is trained from scratch for the same number of steps, on the same cases and with the same seeds, and
then clicked by the perfect user: on `ct-trunk`, which no variant has seen, and on held-out hippocampi. The base
is the default plan with a patch of 64^3 voxels instead of 80^3: a variant takes five minutes of one CPU core for each
seed and 300 steps. Short trainings compare parts; they do not say how good a part gets with time, and chance changes
them much: all variants are done with the first seed, then with the next. What is finished is kept, and another start
goes on.

    .venv/bin/python benchmarks/ablation.py CASES ... --hippocampus FOLDER --output docs/ablation.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deepgrow3d_app.evaluation.ablation import Ablation, Data, read_ablation

DATA: tuple[Data, ...] = ("trunk", "hippocampus")
PROGRAM = [sys.executable, "-m", "deepgrow3d_app"]
TRUNK = Path("sample-data/reference/ct-trunk")
ORGANS = (
    "spleen,kidney_right,kidney_left,gallbladder,liver,stomach,aorta,inferior_vena_cava,"
    "portal_vein_and_splenic_vein,pancreas,adrenal_gland_right,adrenal_gland_left"
)
BASE: dict[str, dict[str, object]] = {
    "spec": {"patch_shape": [64, 64, 64], "spacing_mm": [2.5, 2.5, 2.5], "barrier_reach": [32, 10]},
    "recipe": {"warmup_steps": 40, "validation_structures": 1, "average_decay": 0.99},
}
VARIANTS: dict[str, tuple[str, dict[str, dict[str, object]]]] = {
    "base": ("64^3 voxels of 2.5 mm at zoom 1, otherwise the default plan", {}),
    "no previous mask": (
        "four inputs that tell of clicks, none of the mask before",
        {"spec": {"previous_mask": False}},
    ),
    "Gaussians only": ("no barrier maps, no walkers", {"spec": {"barrier_scale": 0.0, "walker_sigmas": []}}),
    "no walkers": ("Gaussians and barrier maps", {"spec": {"walker_sigmas": []}}),
    "no pseudo-structures": ("real labels only", {"recipe": {"synthetic_share": 0.0}}),
    "one click": ("annotators leave after their first click", {"recipe": {"max_clicks": 1}}),
    "no stretch": ("regions are as wide as they are long", {"spec": {"stretch": 1.0}}),
    "fixed region": ("160 mm for every structure: no zoom", {"spec": {"min_zoom": 1.0, "max_zoom": 1.0}}),
    "patch 48^3": (
        "the same region in 48^3 voxels of 3.33 mm",
        {"spec": {"patch_shape": [48, 48, 48], "spacing_mm": [3.33, 3.33, 3.33], "barrier_reach": [24, 7]}},
    ),
    "patch 80^3": (
        "the same region in 80^3 voxels of 2 mm, as in the default plan",
        {"spec": {"patch_shape": [80, 80, 80], "spacing_mm": [2.0, 2.0, 2.0], "barrier_reach": [40, 12]}},
    ),
    "mirrored patients": ("every patch is mirrored at random", {"recipe": {"turned_share": 1.0}}),
    "no turns": (
        "one batch of annotators: steps in a row learn from the same patches",
        {"recipe": {"batches_in_turn": 1}},
    ),
    "up to 5 clicks": ("annotators leave after 1 to 5 clicks, not 1 to 15", {"recipe": {"max_clicks": 5}}),
    "precise annotators": (
        "all click the deepest voxel",
        {"recipe": {"policies": {"deepest": 1.0, "middle": 0.0, "inside": 0.0, "border": 0.0, "displaced": 0.0}}},
    ),
    "no barrier maps": ("Gaussians and walkers", {"spec": {"barrier_scale": 0.0}}),
    "sigma 2 mm": ("narrower Gaussians", {"spec": {"sigma_mm": 2.0}}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path, help="what is trained on, as for `deepgrow3d train`")
    parser.add_argument("--hippocampus", type=Path, required=True, help="scored as well; the last cases are held out")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--scored", type=int, default=6, help="of the held-out hippocampi")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each variant")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, each on one core")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="where trainings go")
    parser.add_argument("--output", type=Path, default=Path("docs/ablation.json"))
    arguments = parser.parse_args()
    setting = {"steps": arguments.steps, "cases": [case.name for case in arguments.cases], "base": BASE}
    earlier = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
    if earlier and {name: earlier[name] for name in setting} != setting:
        parser.error(f"{arguments.output} was made with other steps, cases or base: remove it, or name another file")
    runs: dict[tuple[str, int], dict[str, object]] = {
        (variant["name"], run["seed"]): run for variant in earlier.get("variants", []) for run in variant["runs"]
    }
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    content = {"command": " ".join(["benchmarks/ablation.py", *words]), **setting}
    asked = [(name, seed) for seed in range(arguments.seeds) for name in VARIANTS]
    with ThreadPoolExecutor(arguments.jobs) as jobs:
        trainings = {
            jobs.submit(train, name, seed, arguments): (name, seed) for name, seed in asked if (name, seed) not in runs
        }
        try:
            for done in as_completed(trainings):
                runs[trainings[done]] = done.result()
                content["variants"] = variants_of(runs)
                arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except BaseException:
            jobs.shutdown(wait=False, cancel_futures=True)  # the others would be trained in vain
            raise
    show(read_ablation(arguments.output))


def variants_of(runs: dict[tuple[str, int], dict[str, object]]) -> list[dict[str, object]]:
    """What is in the file of each variant that has been trained."""
    variants: list[dict[str, object]] = []
    for name, (meaning, changes) in VARIANTS.items():
        of_this = [run for (trained, _), run in sorted(runs.items(), key=lambda item: item[0][1]) if trained == name]
        if of_this:
            variants.append({"name": name, "meaning": meaning, "changes": changes, "runs": of_this})
    return variants


def train(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """Train and score one variant."""
    folder = arguments.runs / f"{name.replace(' ', '-').replace('^', '')}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    plan = {part: {**BASE[part], **VARIANTS[name][1].get(part, {})} for part in BASE}
    plan["recipe"]["seed"] = seed
    (folder / "variant.json").write_text(json.dumps(plan), encoding="utf-8")
    how = ["--spec", folder / "variant.json", "--steps", arguments.steps, "--held-out", arguments.held_out]
    resumes = ["--resume"] if (folder / "run" / "plan.json").exists() else []
    call("train", *arguments.cases, "--output", folder / "run", *how, *resumes)
    network = ["--checkpoint", folder / "run" / "model.safetensors"]
    call("evaluate", TRUNK, "--structures", ORGANS, *network, "--output", folder / "trunk")
    held_out = ["--held-out", arguments.scored, "--clicks", 5]
    call("evaluate", arguments.hippocampus, *held_out, *network, "--output", folder / "hippocampus")
    log = (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "seed": seed,
        "trunk": mean_dice(folder / "trunk" / "summary.csv", (1, 3, 5, 10, 15)),
        "hippocampus": mean_dice(folder / "hippocampus" / "summary.csv", (1, 3, 5)),
        "training_s": json.loads(log[-1])["elapsed_s"],
    }


def call(command: str, *words: object) -> None:
    """One command of the program, on one core."""
    one_core = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run(
        [*PROGRAM, command, *map(str, words)], check=True, stdout=subprocess.DEVNULL, env={**os.environ, **one_core}
    )


def mean_dice(table: Path, clicks: tuple[int, ...]) -> dict[str, float]:
    """Mean Dice by number of clicks."""
    with table.open(encoding="utf-8", newline="") as file:
        (mean,) = (row for row in csv.DictReader(file) if row["structure"] == "mean")
    return {str(count): round(float(mean[f"dice_{count}"]), 3) for count in clicks}


def show(ablation: Ablation) -> None:
    table = Table(title="mean Dice after clicks, over the seeds, and the range of the seeds")
    for title in ("variant", "ct-trunk 1 / 3 / 5 / 10 / 15", "range", "hippocampus 1 / 3 / 5", "range"):
        table.add_column(title)
    for variant in ablation.variants:
        cells = []
        for data in DATA:
            cells.append(" ".join(f"{value:.3f}" for value in variant.mean(data).values()))
            cells.append(" to ".join(f"{value:.3f}" for value in variant.range_of(data)))
        table.add_row(variant.name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
