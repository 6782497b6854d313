"""Closed forms of the Inception Score, and its parts."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.errors import UsageError
from diffcli.evaluation.inception_score import InceptionScore

COUNT, CLASSES = 230, 7
PROBABILITIES = torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(0)).softmax(dim=1)


def scored(probabilities, split=5000):
    score = InceptionScore(split)
    score.add(probabilities)
    return score.score()


def as_written(probabilities):
    """arXiv 1606.03498, section 4, term by term."""
    p = probabilities.double()
    return float((p * (p.log() - p.mean(dim=0).log())).sum(dim=1).mean().exp())


def test_sure_of_every_class_alike_scores_the_number_of_classes():
    assert scored(torch.eye(CLASSES).repeat(3, 1)).mean == pytest.approx(CLASSES, rel=1e-12)


def test_the_same_for_all_images_scores_one():
    assert scored(PROBABILITIES[:1].repeat(50, 1)).mean == pytest.approx(1, rel=1e-12)
    assert scored(torch.eye(CLASSES)[:1].repeat(50, 1)).mean == 1


def test_it_is_the_formula_of_each_part():
    parts = [as_written(part) for part in PROBABILITIES.split(100)]
    assert len(parts) == 3
    found = scored(PROBABILITIES, split=100)
    assert found.count == 3
    assert found.mean == pytest.approx(sum(parts) / 3, rel=1e-12)
    assert found.std == pytest.approx(statistics.pstdev(parts), rel=1e-9)


def test_a_single_part_has_no_spread():
    found = scored(PROBABILITIES)
    assert found.mean == pytest.approx(as_written(PROBABILITIES), rel=1e-12)
    assert found.std is None
    assert found.count == 1


def test_a_part_that_is_full_is_no_part_more():
    assert scored(PROBABILITIES, split=COUNT).count == 1
    assert scored(PROBABILITIES, split=COUNT // 2).count == 2


@given(st.lists(st.integers(0, COUNT), max_size=6), st.integers(1, COUNT + 1))
def test_no_cut_into_batches_changes_more_than_rounding(cuts, split):
    edges = [0, *sorted(cuts), COUNT]
    score = InceptionScore(split)
    for start, stop in pairwise(edges):
        score.add(PROBABILITIES[start:stop])
    whole = scored(PROBABILITIES, split)
    assert score.score().count == whole.count == math.ceil(COUNT / split)
    assert score.score().mean == pytest.approx(whole.mean, rel=1e-12)


def test_asking_on_the_way_changes_nothing():
    score = InceptionScore(100)
    score.add(PROBABILITIES[:130])
    assert score.score() == scored(PROBABILITIES[:130], split=100)
    score.add(PROBABILITIES[130:])
    assert score.score().mean == pytest.approx(scored(PROBABILITIES, split=100).mean, rel=1e-12)


def test_no_images_have_no_score():
    with pytest.raises(UsageError, match="needs images"):
        InceptionScore().score()
