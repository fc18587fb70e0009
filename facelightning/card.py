"""The model card: what a trained task is, what it was trained on, how well it does, and what it is not for."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

TERMS = {
    **{
        name: f"{name}, or other data in its layout. {name} is photographs of real people, for non-commercial research "
        "only, which binds the model's use too."
        for name in ("CelebA", "LFWA", "Helen")
    },
    "Synthetic": "cartoon faces that facelightning draws, which show no one.",
}
"""Parts of the names of data modules, and the terms of their data."""

NOT_FOR = """Attributes such as `Attractive`, `Chubby`, `Male` or `Young` are what a few annotators said of how
someone looks in one photograph. They are neither facts about a person nor a person's own words. Do not use them to
decide about anyone: not for hiring, credit, insurance, policing, border control, surveillance or access; not to infer
gender, age, ethnicity, health or character; and not to identify anyone. Error differs between groups of people: measure
it on your own data before you build on it: `facelightning test --report.subgroups=[Male,Young]`."""


def model_card(
    about: Mapping[str, Any],
    data: str | None = None,
    results: Mapping[str, Any] | None = None,
    tested_on: str | None = None,
    trainings: Sequence[Mapping[str, Any]] = (),
) -> str:
    """A model card as Markdown, with the header that the Hugging Face Hub reads.

    Args:
        about: What a checkpoint says of its task: see :attr:`facelightning.checkpoint.Checkpoint.description`.
        data: Name of the class of its training data, or of several.
        results: The content of ``test_results.json`` of these very weights, if there is one.
        tested_on: Name of the class of its test data, or of several.
        trainings: The commands that made it, as ``training.json`` has them; none if they are not known.

    Example:
        >>> facts = {"image_size": [109, 89], "label_space": None, "attributes": ["Smiling"]}
        >>> card = model_card({"task": "AttributeNet", "settings": {"width": 4}, "facts": facts}, "CelebADataModule")
        >>> card.splitlines()[9]
        '# AttributeNet: 1 facial attribute'
    """
    facts, found = about["facts"], []
    if names := facts.get("attributes"):
        found.append(f"{len(names)} facial attribute{'s' * (len(names) > 1)}")
    if facts.get("label_space"):
        found.append(f"face parsing ({facts['label_space']})")
    what = " and ".join(found) or "faces"
    height, width = facts["image_size"]
    terms = " ".join(text for name, text in TERMS.items() if name in (data or ""))
    header = ["library_name: facelightning", "license: other", "pipeline_tag: image-classification"]
    tags = ["tags:", "- facial-attributes", "- face-parsing"]
    parts = [
        "\n".join(["---", *header, *tags, "---"]) + f"\n\n# {about['task']}: {what}",
        f"`{about['task']}` of facelightning {version('facelightning')}, for images of {height}×{width} pixels.",
        '```python\nimport facelightning as fl\n\nmodel = fl.load_model("FOLDER")  # or "hub:OWNER/NAME"\n'
        'model.predict("photograph.jpg").plot()\n```',
        f"## Data\n\nTrained on {terms or (data or 'data that this file does not name') + ': see its own terms.'}",
        "## Training\n\n" + ("\n\n".join(map(_training, trainings)) or "It is not known what trained these weights."),
        "## Scores\n\n" + (_scores(results, tested_on) if results else "No scores of these weights are known."),
        f"## Intended use, and what it is not for\n\nResearch on face parsing and facial attributes.\n\n{NOT_FOR}",
        f"## Settings\n\n```json\n{json.dumps(about['settings'], indent=2)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _training(training: Mapping[str, Any]) -> str:
    """A command, and what it took."""
    minutes, seconds = divmod(round(training["seconds"]), 60)
    time = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"
    energy = {name: "not measured" if x is None else f"{x / 3600:.2f} Wh" for name, x in training["joules"].items()}
    counted = ", ".join(f"{name} {text}" for name, text in energy.items()) or "not measured"
    commit = f", in a folder at commit {training['commit']}" if training["commit"] else ""
    return (
        f"```bash\n{training['command']}\n```\n\nBegun {training['began']}, with facelightning {training['version']}"
        f"{commit}; {time} on {training['machine']}. Energy: {counted}."
    )


def _scores(results: Mapping[str, Any], tested_on: str | None) -> str:
    """Tables of all scores of a test, in percent."""
    parts = [f"On the test split of {tested_on}, in percent."] if tested_on else []
    if scores := results.get("attributes"):
        keys = {"error": "error %", "mean_ap": "mean AP %", "balanced_accuracy": "balanced accuracy %"}
        keys |= {"calibration_error": "calibration error %"} if "calibration_error" in scores else {}
        parts.append(_table(["test, mean over attributes", *keys.values()], [["", *(scores[key] for key in keys)]]))
        for name, division in scores.get("subgroups", {}).items():
            rows = [
                [group, each["images"], *("{} [{}, {}]".format(*map(_number, each[key])) for key in list(keys)[::2])]
                for group, each in division["groups"].items()
            ]
            parts.append(_table([f"by {name}", "images", "error %", "balanced accuracy %"], rows))
        rows = [
            [name, each["error"], each["ap"], each["balanced_accuracy"]]
            for name, each in scores["per_attribute"].items()
        ]
        parts.append(_table(["attribute", "error %", "AP %", "balanced accuracy %"], rows))
    if scores := results.get("parsing"):
        rows = [*([name, value] for name, value in scores["iou"].items()), ["mean", scores["mean_iou"]]]
        parts.append(_table(["class", "IoU %"], rows))
    return "\n\n".join(parts) if results.keys() & {"attributes", "parsing"} else "No attributes or parsing were tested."


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_number(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(cell: Any) -> str:
    return "–" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell)
