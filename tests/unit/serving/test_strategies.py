import time

import numpy as np

from deepgrow3d_app.serving.strategies import RandomStrategy, UncertainStrategy, last_served_ts


class Images:
    """The two questions that a strategy asks a datastore."""

    def __init__(self, infos):
        self.infos = infos

    def get_unlabeled_images(self):
        return list(self.infos)

    def get_image_info(self, image):
        return self.infos[image]


def choose(infos, seed=0):
    return RandomStrategy(np.random.default_rng(seed))({"strategy": "random"}, Images(infos))


def served(seconds_ago):
    return {"strategy": {"random": {"ts": int(time.time()) - seconds_ago}}}


def test_nothing_is_left():
    assert choose({}) is None


def test_an_image_that_was_just_handed_out_may_come_again_when_it_is_the_last():
    assert choose({"a": served(seconds_ago=0)}) == {"id": "a", "weight": 1}


def test_an_image_that_was_never_handed_out_comes_first():
    assert {choose({"a": served(seconds_ago=10), "b": {}}, seed)["id"] for seed in range(50)} == {"b"}


def test_of_equal_images_each_has_its_chance():
    chosen = [choose({"a": served(100), "b": served(100)}, seed)["id"] for seed in range(200)]
    assert 70 < chosen.count("a") < 130


def test_what_clients_wrote_into_the_info_does_no_harm():
    for info in ({"strategy": "x"}, {"strategy": {"random": 3}}, {"strategy": {"random": {"ts": "x"}}}):
        assert choose({"a": info})["id"] == "a"


class Known:
    """Scores that are known already."""

    def __init__(self, scores):
        self.known = scores

    def scores(self, images):
        return {image: self.known[image] for image in images if image in self.known}


def unsure(infos, scores):
    strategy = UncertainStrategy(Known(scores), RandomStrategy(np.random.default_rng(0)))  # type: ignore[arg-type]
    return strategy({"strategy": "uncertain"}, Images(infos))


def test_the_least_sure_image_comes_first():
    assert unsure({"a": {}, "b": {}, "c": {}}, {"a": 0.2, "b": 0.7}) == {"id": "b", "weight": 0.7}


def test_an_image_that_somebody_has_is_not_handed_out_again_until_it_is_the_last():
    now = {"strategy": {"uncertain": {"ts": int(time.time())}}}
    assert unsure({"a": {}, "b": now}, {"a": 0.2, "b": 0.7})["id"] == "a"
    assert unsure({"a": now, "b": now}, {"a": 0.2, "b": 0.7})["id"] == "b"


def test_where_all_that_are_scored_are_somebodys_one_of_the_others_is_handed_out():
    now = {"strategy": {"uncertain": {"ts": int(time.time())}}}
    for _ in range(50):
        assert unsure({"a": now, "b": {}, "c": now}, {"a": 0.7})["id"] == "b"


def test_while_nothing_is_known_chance_decides():
    assert unsure({"a": {}}, {})["id"] == "a"
    assert unsure({}, {"a": 1.0}) is None


def test_a_time_that_is_none_is_no_time():
    for ts in (-(10**400), 10**400, True, "9", None):
        assert last_served_ts({"strategy": {"random": {"ts": ts}}}, "random") in (0, 1)
        assert choose({"a": {"strategy": {"random": {"ts": ts}}}})["id"] == "a"
