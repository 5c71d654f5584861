from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.cases.split import validation_patients

patients = st.lists(st.text(max_size=4), max_size=30)
shares = st.floats(0.0, 0.99)
seeds = st.integers(0, 1000)


@given(patients, shares, seeds, st.randoms())
def test_the_order_of_patients_does_not_matter(names, share, seed, random):
    shuffled = random.sample(names, len(names))
    assert validation_patients(shuffled, share, seed) == validation_patients(names, share, seed)


@given(patients, st.floats(0.01, 0.99), seeds)
def test_either_side_gets_someone(names, share, seed):
    validation = validation_patients(names, share, seed)
    assert validation <= set(names)
    if len(set(names)) >= 2:
        assert 0 < len(validation) < len(set(names))
    else:
        assert not validation


@given(st.sets(st.text(max_size=4), min_size=2), st.sets(st.text(max_size=4)), st.floats(0.0, 0.5), seeds)
def test_later_patients_move_nobody_from_training_to_validation(first, later, share, seed):
    before = validation_patients(first, share, seed)
    after = validation_patients(first | later, share, seed)
    is_forced = len(before) == len(first) - 1  # nearly all drawn for validation: one was spared for training
    assert is_forced or not (first - before) & after


def test_the_share_holds_on_average_and_the_seed_matters():
    names = [f"patient {number}" for number in range(1000)]
    assert 170 < len(validation_patients(names, 0.2, seed=0)) < 230
    assert validation_patients(names, 0.2, seed=0) != validation_patients(names, 0.2, seed=1)
    assert validation_patients(names, 0.0, seed=0) == frozenset()


def test_the_draw_is_the_same_on_every_machine():
    assert validation_patients("abcdefgh", 0.3, seed=0) == frozenset("fh")
