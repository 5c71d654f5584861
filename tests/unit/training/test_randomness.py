import itertools

import numpy as np

from deepgrow3d_app.click.batched import Policy, PolicyMix
from deepgrow3d_app.training.randomness import Stream, generator_of


def test_equal_numbers_give_equal_draws():
    first, second = (generator_of(Stream.CLICK, 1, 2, 3, 4).random(5) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_no_two_streams_slots_patches_or_rounds_begin_alike():
    """NumPy fills up short seeds with zeros, so that [1, 2, 3] and [1, 2, 3, 0] are one: here none may be."""
    numbers = itertools.product(Stream, range(2), range(3), range(3), range(3))
    beginnings = [generator_of(*of_one).random() for of_one in numbers]
    assert len(set(beginnings)) == len(beginnings)


def test_what_annotators_are_like_does_not_depend_on_their_patch():
    """The first numbers of a patch choose its data set: in each tenth of them, every policy has its share."""
    mix = PolicyMix(1.0, 1.0, 1.0, 1.0, 1.0)
    counts = np.zeros((10, len(Policy)))
    for number in range(3000):
        tenth = int(generator_of(Stream.PATCH, 0, 0, number).random(2)[1] * 10)
        annotator = generator_of(Stream.ANNOTATOR, 0, 0, number)
        annotator.integers(1, 16)
        counts[tenth, mix.draw(annotator).value] += 1
    assert counts.min() > 30  # 60 on average
