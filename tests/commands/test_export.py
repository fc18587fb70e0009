"""Exports say what their network says, without facelightning; what is shared is whole, or refused."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import facelightning as fl
from facelightning.__main__ import main
from facelightning.card import model_card
from facelightning.checkpoint import weights_digest
from facelightning.commands.eight_bits import labelled
from facelightning.commands.export import difference
from facelightning.data import CelebADataModule
from facelightning.errors import CheckpointError
from facelightning.hub import write_folder
from facelightning.tasks import FaceTask
from tests.cli.conftest import AVG, JOINT, SEGNET
from tests.cli.conftest import runs as runs
from tests.cli.conftest import trained as trained
from tests.conftest import SIZE

ALONE = """
import json, sys
sys.modules |= dict.fromkeys(("torch", "facelightning", "onnx", "cv2"))  # not to be imported
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
names = [each.name for each in session.get_outputs()]
numpy.savez(sys.argv[3], **dict(zip(names, session.run(names, {"images": numpy.load(sys.argv[2])}))))
said = session.get_modelmeta().custom_metadata_map
print(json.loads(said["facelightning.attributes"])[20], json.loads(said["facelightning.classes"])[1])
"""


def noise(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(256, size=(count, 3, *SIZE), dtype=np.uint8)


def said_by(task: FaceTask, images: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, np.ndarray[Any, Any]]:
    """What the task itself predicts."""
    with torch.no_grad():
        output, _ = task.predict_batch({"image": torch.from_numpy(images)})
    attributes = task.objectives["attributes"]
    found = {"probabilities": attributes.predict(output), "decisions": attributes.decide(output)}  # type: ignore[attr-defined]  # attributes decide
    if "parsing" in output:
        found |= {"classes": task.objectives["parsing"].predict(output)}
        found |= {"class_probabilities": output["parsing"][-1].softmax(1)}
    return {name: each.numpy() for name, each in found.items()}


def test_onnx_needs_neither_torch_nor_facelightning(
    command: Callable[..., None], runs: Path, faces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A calibrated joint network: its thresholds go along; batches of any size; and a small file beside it."""
    command("calibrate", JOINT)
    checkpoint = "runs/calibrated/version_0/checkpoints/best.ckpt"
    record = json.loads(Path("runs/calibrated/version_0/training.json").read_text())
    assert [each["command"].split()[1] for each in record["trainings"]] == ["fit", "calibrate"]
    command("export", checkpoint, "--int8", "--output", "model.onnx")
    images = noise(3)
    np.save("images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "model.onnx", "images.npy", "found.npz"], capture_output=True, text=True
    )
    assert done.stdout == "Male hair\n", done.stderr
    found, task = dict(np.load("found.npz")), fl.load_model(checkpoint)
    expected = said_by(task, images)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5 if "probabilities" in name else 0)
    assert not np.array_equal(found["decisions"], found["probabilities"] > 0.5)  # thresholds of its own
    session = onnxruntime.InferenceSession("model.onnx")
    (alone,) = session.run(["probabilities"], {"images": images[:1]})
    np.testing.assert_allclose(alone, expected["probabilities"][:1], atol=1e-5)
    assert Path("model.int8.onnx").stat().st_size < Path("model.onnx").stat().st_size

    data = CelebADataModule(str(faces / "celeba"), image_size=SIZE, batch_size=20, num_workers=0)
    (batch,) = data.test_dataloader()
    wrong = []
    for file in ("model.onnx", "model.int8.onnx"):
        (decisions,) = onnxruntime.InferenceSession(file).run(["decisions"], {"images": batch["image"].numpy()})
        wrong.append(100 * np.mean(decisions != (batch["attributes"].numpy() > 0.5)))
    on_masks, on_faces = re.findall(r"what eight bits cost on (\d+) test images of (\w+): (.*)", caplog.text)
    assert on_faces[:2] == ("13", "CelebADataModule") and on_masks[:2] == ("7", "HelenDataModule")
    assert on_faces[2].startswith("error {:.2f} → {:.2f} %, mean AP ".format(*wrong))
    assert re.fullmatch(r"mean IoU [\d.]+ → [\d.]+ %", on_masks[2])


def test_torch_export(command: Callable[..., None], runs: Path) -> None:
    command("export", AVG, "--format=torch")
    files = {"facelightning.attributes": ""}
    program = torch.export.load(AVG.replace(".ckpt", ".pt2"), extra_files=files)
    assert json.loads(files["facelightning.attributes"])[20] == "Male"
    probabilities, decisions = program.module()(torch.from_numpy(noise(5)))
    expected = said_by(fl.load_model(AVG), noise(5))
    np.testing.assert_allclose(probabilities.detach(), expected["probabilities"], atol=1e-6)
    assert np.array_equal(decisions, expected["decisions"])


def test_a_shared_folder_is_a_checkpoint(command: Callable[..., None], runs: Path, faces: Path) -> None:
    command("test", f"--ckpt_path={AVG}", "--report.subgroups=[Male]", "--trainer.logger.version=version_1")
    command("export", AVG, "--format=safetensors", "--output=shared")
    assert str(faces) not in Path("shared/config.json").read_text()
    card = Path("shared/README.md").read_text()
    assert "| Wearing_Necktie |" in card and "| not Male | " in card and "CelebA is photographs of real people" in card
    assert "On the test split of CelebADataModule" in card
    assert "```bash\nfacelightning fit --config=avg.yaml --config=" in card
    ours, theirs = fl.load_model(AVG), fl.load_model("shared")
    assert ours.settings == theirs.settings and ours.facts == theirs.facts
    for (name, value), (other_name, other) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(value, other)
    data = ["--data=CelebADataModule", f"--data.root={faces / 'celeba'}", "--data.num_workers=0"]
    command("test", "--ckpt_path=shared", *data, "--trainer.logger.save_dir=again")
    (found,) = Path("again").rglob("test_results.json")
    before = json.loads((runs / "avg/version_1/test_results.json").read_text())
    assert json.loads(found.read_text())["attributes"]["error"] == before["attributes"]["error"]
    assert json.loads(found.read_text())["weights"] == before["weights"]


def test_a_card_is_of_these_very_weights(command: Callable[..., None], runs: Path) -> None:
    """Whatever the place of the file: it has been trained again since its test; or only a part of the data was used."""
    share = ("export", AVG, "--format=safetensors", "--output=shared")
    command("test", f"--ckpt_path={AVG}", "--trainer.limit_test_batches=2")
    command(*share)
    card = Path("shared/README.md").read_text()
    assert "No scores of these weights are known" in card and "facelightning fit" in card
    content = torch.load(AVG, weights_only=True)
    before = weights_digest(content["state_dict"])
    next(iter(content["state_dict"].values())).flatten()[0] += 1e-3
    torch.save(content, AVG)
    scores = {"attributes": {"error": 1.0, "mean_ap": 99.0, "balanced_accuracy": 98.0, "per_attribute": {}}}
    results = runs / "avg/version_0/test_results.json"
    results.write_text(json.dumps(scores | {"weights": before}))
    command(*share)
    card = Path("shared/README.md").read_text()
    assert "No scores of these weights are known" in card and "It is not known what trained these weights" in card
    results.write_text(json.dumps(scores | {"weights": weights_digest(content["state_dict"])}))
    command(*share)
    assert "| 1.00 | 99.00 | 98.00 |" in Path("shared/README.md").read_text()
    (runs / "avg/version_0/training.json").write_text("{")
    assert main(share) == 1


def test_what_is_not_whole_is_refused(command: Callable[..., None], runs: Path, refused: Callable[..., str]) -> None:
    command("export", SEGNET, "--format=safetensors", "--output=shared")
    whole, weights = Path("shared/model.safetensors").read_bytes(), load_file("shared/model.safetensors")
    Path("shared/model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit of one number
    assert "model.safetensors is not the one that config.json was written with" in refused(
        "export", "shared", "--output=x"
    )
    content = {"facelightning": json.loads(Path("shared/config.json").read_text())["facelightning"]}
    for changed in (dict(list(weights.items())[1:]), weights | {"network.more": torch.ones(1)}):
        write_folder("shared", content | {"state_dict": changed}, "")
        assert "do not fit its settings" in refused("export", "shared", "--output=x")
    Path("shared/config.json").write_text("nothing")
    assert "shared cannot be read" in refused("export", "shared", "--output=x")
    Path("shared/model.safetensors").unlink()
    assert "shared has no model.safetensors: copy the whole folder again" in refused("export", "shared", "--output=x")


def test_a_shared_folder_is_not_resumed(
    command: Callable[..., None], runs: Path, refused: Callable[..., str], faces: Path
) -> None:
    command("export", AVG, "--format=safetensors", "--output=shared")
    said = refused(
        "fit", "--ckpt_path=shared", "--config=avg.yaml", f"--data.root={faces / 'celeba'}", "--model.width=2"
    )
    assert "shared" in said, said


def test_nothing_else_is_overwritten(command: Callable[..., None], runs: Path, refused: Callable[..., str]) -> None:
    share = ("export", AVG, "--format=safetensors", "--output=mine")
    Path("mine").mkdir()
    for name, text in (("README.md", "my project"), ("config.json", '{"mine": 1}')):
        Path("mine", name).write_text(text)
        assert f"mine has a {'config.json' if name[0] == 'c' else name} of something else" in refused(*share)
        assert Path("mine", name).read_text() == text
        Path("mine", name).unlink()
    command(*share)
    command(*share)  # its own files
    assert "--output=mine is what is exported" in refused("export", "mine", "--format=safetensors", "--output=mine")
    assert "mine is no file beside which its export could lie" in refused("export", "mine", "--format=safetensors")


def test_a_folder_knows_how_faces_were_cut(tmp_path: Path, runs: Path) -> None:
    """Also if the data module of a joint one did; and its card knows the terms of both parts."""
    content = torch.load(AVG, weights_only=True)
    parts = {
        "attributes": {"class_path": "facelightning.CelebADataModule", "init_args": {"crop": {"margin": 2.5}}},
        "parsing": {"class_path": "facelightning.HelenDataModule", "init_args": {}},
    }
    content["facelightning_config"] = {"data": {"class_path": "facelightning.JointDataModule", "init_args": parts}}
    torch.save(content, "joint.ckpt")
    assert main(["export", "joint.ckpt", "--format=safetensors", "--output=joint"]) == 0
    assert fl.load_model("joint").crop_margin == fl.load_model("joint.ckpt").crop_margin == 2.5
    card = Path("joint/README.md").read_text()
    assert "CelebA is photographs" in card and "Helen is photographs" in card


def test_photographs_are_predicted_by_a_folder(command: Callable[..., None], runs: Path, faces: Path) -> None:
    command("export", AVG, "--format=safetensors", "--output=shared")
    photograph = str(next((faces / "celeba").rglob("*.jpg")))
    command("predict", "shared", photograph, "--workers=0", "--overlays=none")
    assert Path("predictions/predictions.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    "settings",
    [
        {
            "regions": {
                "class_path": "facelightning.models.parser.ParserRegions",
                "init_args": {"checkpoint": "hub:a/b"},
            }
        },
        {"members": ["hub:a/b"]},
        {"network": "/etc/passwd"},
        {"encoder": {"class_path": "facelightning.models.Fusion", "init_args": {"frozen": ["a.ckpt"]}}},
    ],
)
def test_a_file_leads_to_no_other(settings: dict[str, Any], runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    content = torch.load(AVG, weights_only=True)
    content["facelightning"]["settings"] |= settings
    torch.save(content, "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"evil.ckpt names other checkpoints, which one that holds all its parts"):
        fl.load_model("evil.ckpt")


@pytest.mark.parametrize(
    "facts",
    [{"image_size": [0, 5]}, {"image_size": [1.5, 9]}, {"image_size": [10**9, 10**9]}, {"attributes": ["a"] * 40}],
)
def test_facts_that_cannot_be_are_refused(facts: dict[str, Any], runs: Path) -> None:
    content = torch.load(AVG, weights_only=True)
    content["facelightning"]["facts"] |= facts
    torch.save(content, "odd.ckpt")
    with pytest.raises(CheckpointError, match=r"the settings in odd.ckpt are not those of this version"):
        fl.load_model("odd.ckpt")


def test_mistakes_are_sentences(refused: Callable[..., str], runs: Path) -> None:
    assert "checkpoint missing.ckpt does not exist" in refused("export", "missing.ckpt")
    assert "--int8 is of --format=onnx, not of torch" in refused("export", AVG, "--format=torch", "--int8")
    assert "--data.root=a is of --int8" in refused("export", AVG, "--data.root=a")
    assert "--push is of --format=safetensors" in refused("export", AVG, "--push=me/model")
    assert "takes more than an image of one size" in refused("export", "runs/bbox/version_0/checkpoints/best.ckpt")


def test_the_hub_is_a_folder_elsewhere(
    command: Callable[..., None], runs: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    """Without a network: what would be sent, and what would come back."""
    sent: dict[str, Any] = {}

    class Hub:
        def create_repo(self, name: str, **options: Any) -> str:
            return f"address of {name}"

        def upload_folder(self, **options: Any) -> None:
            sent.update(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    command("export", AVG, "--format=safetensors", "--output=shared", "--push=me/model")
    files = ["config.json", "model.safetensors", "README.md"]  # whatever else lies there
    assert sent == {"repo_id": "me/model", "folder_path": Path("shared"), "allow_patterns": files}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: {"me/model": "shared"}[name])
    assert isinstance(fl.load_model("hub:me/model"), fl.AttributeNet)
    assert "hub:me/other cannot be loaded (KeyError" in refused("export", "hub:me/other", "--output=x")


def test_scores_of_eight_bits_need_labelled_faces(
    runs: Path, refused: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """Those of the run, if they are there; what the command line names must be there, before anything is written."""
    task, content = fl.load_model(AVG), torch.load(AVG, weights_only=True)
    options = content["facelightning_config"]["data"]["init_args"]
    options["root"] = "moved"
    torch.save(content, AVG)
    assert "elsewhere does not exist" in refused("export", AVG, "--int8", "--output=x.onnx", "--data.root=elsewhere")
    assert not Path("x.onnx").exists()
    assert labelled(AVG, [], task) == [] and "moved does not exist" in caplog.text
    options["nonsense"] = 3
    torch.save(content, AVG)
    assert labelled(AVG, [], task) == [] and "of another version" in caplog.text
    del content["facelightning_config"]
    torch.save(content, AVG)
    assert labelled(AVG, [], task) == [] and "was trained without the command line" in caplog.text


def test_a_difference_is_found() -> None:
    ours = {"probabilities": np.array([[0.5, 0.25]]), "decisions": np.array([[True, False]])}
    theirs = {"probabilities": np.array([[0.5, 0.5]]), "decisions": np.array([[False, False]])}
    assert difference(ours, theirs) == {"probabilities": 0.25, "decisions that differ, %": 50}


def test_a_card_without_a_test_says_so() -> None:
    facts = {"image_size": [9, 8], "label_space": "helen7", "attributes": None}
    card = model_card({"task": "SegNet", "settings": {}, "facts": facts}, "SyntheticDataModule")
    assert (
        "# SegNet: face parsing (helen7)" in card and "No scores of these weights" in card and "cartoon faces" in card
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "usage: facelightning export" in capsys.readouterr().out
