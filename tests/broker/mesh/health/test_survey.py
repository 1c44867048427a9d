"""Asking all links at once whether they answer."""

from __future__ import annotations

import math

from quicbus_broker.mesh.health.survey import Survey
from tests.broker.mesh.health.watch import CONFIG, A, B


def test_a_survey_that_the_process_slept_through_is_made_again() -> None:
    survey = Survey(CONFIG)
    assert survey.begin((A, B), 0.0) == [A, B]
    assert survey.end(60.0) == ([], [A, B])
    survey.heard(A)
    assert survey.end(survey.next_timer()) == ([B], [])
    assert survey.next_timer() == math.inf
    assert survey.heard(B)
    assert not survey.heard(B)


def test_surveys_are_some_intervals_apart() -> None:
    survey = Survey(CONFIG)
    survey.begin((A,), 0.0)
    assert survey.begin((A, B), 1.0) == []
    assert survey.begin((A, B), 10.0) == [A, B]
