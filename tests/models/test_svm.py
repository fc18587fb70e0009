"""SVMs against scikit-learn's own, fitted, cross-validated and calibrated by hand."""

import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.models.svm import LinearSVMs
from facelightning.models.svm_fitting import fit_svms

Floats = npt.NDArray[np.float64]
GRID = (1e-4, 1e-3, 1e-2, 1e-1)


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings(action="error"):
        yield


def data(count: int = 120, attributes: int = 6, unknown: float = 0.1) -> tuple[Tensor, Tensor]:
    """Features of very different scales, and attributes that they tell more or less of; some are unknown."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(count, 12))
    noise = np.linspace(0, 6, attributes) * rng.normal(size=(count, attributes))
    truth = (hidden @ rng.normal(size=(12, attributes)) + noise > np.linspace(-3, 5, attributes)).astype(float)
    truth[rng.random(truth.shape) < unknown] = np.nan
    features = hidden * 10.0 ** rng.integers(-3, 4, 12) + rng.normal(size=12) * 100
    return torch.from_numpy(features), torch.from_numpy(truth).float()


def reference(c: float) -> Any:
    return make_pipeline(StandardScaler(), LinearSVC(C=c, dual=False))


def chosen(x: Floats, y: Floats, folds: int = 5) -> float:
    """The smallest C of the grid with the most correct decisions on folds held out, one loop at a time."""
    correct = dict.fromkeys(GRID, 0)
    for c in GRID:
        for train, held_out in StratifiedKFold(folds).split(x, y):
            correct[c] += int(
                ((reference(c).fit(x[train], y[train]).decision_function(x[held_out]) > 0) == y[held_out]).sum()
            )
    return min(c for c in GRID if correct[c] == max(correct.values()))


def columns(features: Tensor, targets: Tensor) -> Iterator[tuple[int, Floats, Floats]]:
    """The known images of each attribute."""
    for number, column in enumerate(targets.T):
        known = ~column.isnan()
        yield number, features[known].numpy(), column[known].numpy().astype(np.float64)


def test_decisions_are_scikit_learns() -> None:
    """After a save and a load, of new features, with C as a brute force finds it, and where truth is known."""
    features, targets = data()
    file = io.BytesIO()
    torch.save(fit_svms(features, targets).state_dict(), file)
    file.seek(0)
    svms = LinearSVMs(features.shape[1], targets.shape[1])
    svms.load_state_dict(torch.load(file, weights_only=True))
    new, _ = data(count=50)
    found, values = svms(new), set()
    assert found.dtype == torch.float64
    for number, x, y in columns(features, targets):
        values.add(c := chosen(x, y))
        expected = reference(c).fit(x, y).decision_function(new.numpy())
        np.testing.assert_allclose(found[:, number], expected, rtol=0, atol=1e-10)
    assert len(values) > 2  # not one for all


def test_more_features_than_images() -> None:
    """Fitted in a space of as many dimensions as there are images; scikit-learn stops when it is near, not there."""
    features, targets = data(attributes=3)
    mixed = torch.sin(features / features.std(dim=0) @ torch.randn(12, 300, generator=torch.manual_seed(0)).double())
    seen, new = mixed[:90], mixed[90:]
    found = fit_svms(seen, targets[:90])(new)
    for number, x, y in columns(seen, targets[:90]):
        expected = reference(chosen(x, y)).fit(x, y).decision_function(new.numpy())
        np.testing.assert_allclose(found[:, number], expected, rtol=0, atol=1e-3)


def test_probabilities_are_scikit_learns() -> None:
    """Platt's sigmoid of the decisions on folds held out."""
    features, targets = data()
    svms = fit_svms(features, targets)
    found = svms.calibrate(svms(features)).sigmoid()
    for number, x, y in columns(features, targets):
        model = CalibratedClassifierCV(reference(chosen(x, y)), method="sigmoid", cv=StratifiedKFold(5), ensemble=False)
        expected = model.fit(x, y).predict_proba(features.numpy())[:, 1]
        np.testing.assert_allclose(found[:, number], expected, rtol=0, atol=1e-6)


def test_all_that_is_unknown_is_left_out() -> None:
    """Whatever the features there."""
    features, targets = data(unknown=0)
    targets[::3, 2] = torch.nan
    other = features.clone()
    other[::3] = 1e6
    whole, without = fit_svms(features, targets).coefficients, fit_svms(other, targets).coefficients
    assert torch.equal(whole[2], without[2])
    assert not torch.equal(whole[1], without[1])


@pytest.mark.parametrize(
    ("positives", "negatives", "decision"), [(9, 0, 1), (9, 1, 1), (1, 9, -1), (0, 9, -1), (1, 1, -1), (0, 0, -1)]
)
def test_an_attribute_that_cannot_be_held_out_is_constant(positives: int, negatives: int, decision: int) -> None:
    targets = torch.tensor([1.0] * positives + [0.0] * negatives + [torch.nan] * 3)
    svms = fit_svms(torch.randn(len(targets), 4), targets[:, None])
    found = svms(torch.randn(5, 4))
    assert found.flatten().tolist() == [decision] * 5
    expected = (positives + 1) / (positives + negatives + 2)
    assert svms.calibrate(found).sigmoid().flatten().tolist() == pytest.approx([expected] * 5)


@pytest.mark.parametrize("rarer", [2, 3, 4])
def test_as_many_folds_as_there_are_of_the_rarer(rarer: int) -> None:
    features, _ = data(count=40)
    targets = torch.zeros(40)
    targets[:: 40 // rarer][:rarer] = 1
    x, y = features.numpy(), targets.numpy()
    expected = reference(chosen(x, y, rarer)).fit(x, y).decision_function(x)
    np.testing.assert_allclose(fit_svms(features, targets[:, None])(features)[:, 0], expected, rtol=0, atol=1e-10)


def test_an_attribute_does_not_depend_on_the_others() -> None:
    """Nor on the time: processes share them."""
    features, targets = data()
    whole = fit_svms(features, targets).coefficients
    assert torch.equal(fit_svms(features, targets[:, 1::2]).coefficients, whole[1::2])
    assert fit_svms(features, targets[:, :0]).coefficients.shape == (0, 15)


def test_features_that_say_nothing_or_all() -> None:
    """Constant ones, and ones that a threshold separates."""
    truth = (torch.arange(30) % 3 == 0).float()[:, None]
    dead = fit_svms(torch.full((30, 4), 7.0), truth)
    assert dead(torch.full((1, 4), 7.0)) < 0
    assert float(dead.calibrate(dead(torch.full((1, 4), 7.0))).sigmoid()) == pytest.approx(1 / 3, abs=0.05)
    clear = fit_svms(truth + 5, truth)
    assert clear.coefficients.isfinite().all()
    assert torch.equal(clear(truth + 5) > 0, truth == 1)
    assert ((clear.calibrate(clear(truth + 5)).sigmoid() - truth).abs() < 0.1).all()


def test_neither_precision_nor_device_of_a_network_rounds_them() -> None:
    features, targets = data()
    svms = fit_svms(features, targets)
    expected = svms(features.bfloat16().double())
    assert torch.equal(svms.half()(features.bfloat16()), expected)
    assert torch.equal(torch.nn.Sequential(svms).to("meta", torch.bfloat16)[0](features.bfloat16()), expected)


def test_what_is_not_fitted_decides_nothing() -> None:
    with pytest.raises(ConfigurationError, match="the SVMs are not fitted yet: `facelightning test`"):
        LinearSVMs(4, 2)(torch.rand(3, 4))


@pytest.mark.parametrize("size", [(5, 2), (4, 3)])
def test_state_of_other_svms_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(CheckpointError, match=r"the checkpoint's SVMs are \(\d, \d\), not \(2, 7\)"):
        LinearSVMs(4, 2).load_state_dict(LinearSVMs(*size).state_dict())
