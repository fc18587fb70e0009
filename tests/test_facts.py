"""What a task knows of its data, as a checkpoint keeps it."""

import json

import pytest

from facelightning.facts import DataFacts
from facelightning.labels import ATTRIBUTES, HELEN7, HELEN11

FACTS = (
    DataFacts((218, 178)),
    DataFacts((109, 89), HELEN7),
    DataFacts((109, 89), HELEN11, ("Bald", "Young")),
    DataFacts((36, 28), attributes=ATTRIBUTES),
    DataFacts((129, 129), attributes=("Bald",), identities=(-4, 0, 2**53)),
    DataFacts((227, 227), categories=("cat", "n02106662 German shepherd")),
)


@pytest.mark.parametrize("facts", FACTS, ids=repr)
def test_plain_facts_are_the_same_facts(facts: DataFacts) -> None:
    """Also through JSON, which knows neither tuples nor label spaces."""
    again = DataFacts.of(json.loads(json.dumps(facts.plain())))
    assert again == facts
    assert again.label_space is facts.label_space
    assert again.plain() == facts.plain()


def test_what_only_training_needs_is_not_kept() -> None:
    facts = DataFacts((36, 28), attributes=("Bald", "Young"), positive_rates=(0.02, 0.77))
    again = DataFacts.of(facts.plain())
    assert again.positive_rates is None
    assert again == DataFacts((36, 28), attributes=("Bald", "Young"))


def test_a_checkpoint_from_before_identities_and_categories_were_kept() -> None:
    plain = DataFacts((36, 28), attributes=("Bald", "Young"), identities=(3, 5)).plain()
    del plain["identities"], plain["categories"]
    assert DataFacts.of(plain) == DataFacts((36, 28), attributes=("Bald", "Young"))
