"""Whatever a configuration or a checkpoint holds: it is read, or refused by one sentence that names it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from facelightning.cli.arguments import merge
from facelightning.configs import chain
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.tasks import AttributeNet, FaceTask, load_model
from facelightning.tasks.saving import AtomicCheckpoints
from tests.conftest import bounded
from tests.tasks.tiny import FACTS, QUIET, save

pytestmark = QUIET

BOMB = "\n".join(["a: &a [x]", *(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi"))])  # noqa: B905  # pairs
LOOP = "a: &a [*a]"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def check(error: Exception, path: Path) -> None:
    assert str(path) in str(error)
    assert len(str(error).replace(str(path.parent), "")) <= 300
    assert "\n" not in str(error)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written anew for each example."""
    return tmp_path_factory.mktemp("fuzz") / "own.yaml"


@given(
    st.text() | st.binary() | st.from_regex(r"([a-z]: *([&*][ab] |!!?[a-z/:]+ |[\[{\]}>|\"'-])?[a-z0-9:.-]*\n){1,5}")
)
@example(BOMB)
@example(LOOP)
@example("[" * 10_000)
@example("day: 2020-99-99")
@example("extends: [1]")
@example("extends: {a: b}")
@example("extends: " + "x" * 5000)
@example("1: 2")
@example("!!python/object/apply:os.system [touch owned]")
def test_any_text_as_a_configuration(config: Path, content: str | bytes) -> None:
    config.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    try:
        with bounded():
            found = chain(config)
    except ConfigurationError as error:
        if "neither in" not in str(error):
            check(error, config)
    else:
        assert isinstance(found[-1][1], dict)
    assert not (config.parent / "owned").exists()


@given(st.dictionaries(st.sampled_from(["model", "data", "trainer", "extends", "seed_everything"]), values, max_size=3))
def test_any_values_in_a_configuration(config: Path, content: dict[str, Any]) -> None:
    config.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    try:
        found = merge(["fit", f"--config={config}"])
    except ConfigurationError:
        return
    expected = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    expected.pop("extends", None)
    assert yaml.safe_dump(found) == yaml.safe_dump(expected)  # NaN equals NaN there


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = save(AttributeNet(width=2).build(FACTS), tmp_path_factory.mktemp("good") / "good.ckpt")
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return {key: content[key] for key in ("facelightning", "state_dict")}


@pytest.fixture(scope="module")
def written(good: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of it."""
    path = tmp_path_factory.mktemp("written") / "bytes.ckpt"
    AtomicCheckpoints().save_checkpoint(good, path)
    return path.read_bytes()


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to each value."""
    for key, item in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(value: dict[str, Any], path: tuple[str, ...], new: Any) -> dict[str, Any]:
    first, *rest = path
    return value | {first: changed(value[first], tuple(rest), new) if rest else new}


@given(st.data())
def test_any_value_in_a_checkpoint(good: dict[str, Any], config: Path, data: st.DataObject) -> None:
    path = config.parent / "own.ckpt"
    place = data.draw(st.sampled_from([*places(good), ("hyper_parameters",), ("facelightning_config",)]))
    tensors = st.sampled_from([torch.zeros(2), torch.tensor(float("nan")), torch.zeros(0, 3, dtype=torch.int8)])
    AtomicCheckpoints().save_checkpoint(changed(good, place, data.draw(values | tensors)), path)
    refuse_or_load(path)


@given(st.binary(min_size=1, max_size=200), st.floats(0, 1), st.booleans())
def test_any_bytes_in_a_checkpoint(
    good: dict[str, Any], written: bytes, config: Path, new: bytes, share: float, cut: bool
) -> None:
    path = config.parent / "bytes.ckpt"
    place = int(share * len(written))
    path.write_bytes(written[:place] + new + (b"" if cut else written[place + len(new) :]))
    task = refuse_or_load(path)
    if task is not None:
        weights = task.state_dict()
        assert [key for key, value in good["state_dict"].items() if not torch.equal(weights[key], value)] == []


def test_what_is_marked_as_a_folder_is_refused(written: bytes, config: Path) -> None:
    """To torch it would be memory that nobody wrote."""
    path = config.parent / "folder.ckpt"
    place = written.rindex(b"PK\1\2") + 38  # the attributes of the last item in the list of all
    path.write_bytes(written[:place] + b"\x10" + written[place + 1 :])
    with pytest.raises(CheckpointError, match="in it is not as it was written"):
        load_model(path)


def refuse_or_load(path: Path) -> FaceTask | None:
    try:
        with bounded():
            return load_model(path)
    except CheckpointError as error:
        check(error, path)
        return None
