"""What the screen shows of a training."""

import io

from rich.console import Console

from folkmoot.demo.progress import Scores, progress
from folkmoot.demo.screen import PlainLines, table

TESTED = {"a": {"loss": 1.0, "accuracy": 0.5, "num_examples": 30}, "b": {"loss": 0.2, "accuracy": 0.9}}


def a_round(number, state, arrived=(), tested=None):
    return {"number": number, "state": state, "arrived": list(arrived), "metrics": {"train": {}, "test": tested or {}}}


def progress_of(*rounds, held_out=()):
    return progress({"target_num_updates": 5, "rounds": list(rounds)}, ["a", "b"], [30, 10], held_out)


def answered(shown):
    return [row.has_answered for row in shown.rows]


def test_before_the_first_round_everybody_is_awaited():
    shown = progress_of()

    assert (shown.round, shown.rounds, answered(shown)) == (1, 5, [False, False])
    assert shown.weighted is None


def test_who_has_sent_an_update_has_answered():
    assert answered(progress_of(a_round(0, "OPEN", arrived=["b"]))) == [False, True]


def test_during_a_test_those_who_have_tested_have_answered():
    shown = progress_of(a_round(0, "TESTING", arrived=["a", "b"], tested={"a": TESTED["a"]}))

    assert answered(shown) == [True, False]
    assert shown.weighted is None


def test_scores_are_weighted_by_the_number_of_examples():
    shown = progress_of(a_round(0, "CLOSED", arrived=["a", "b"], tested=TESTED), a_round(1, "OPEN"))

    assert shown.round == 2
    assert shown.rows[0].scores == Scores(loss=1.0, accuracy=0.5)
    assert shown.weighted == Scores(loss=0.8, accuracy=0.6)


def test_the_table_names_who_is_awaited_and_all_scores():
    shown = progress_of(
        a_round(0, "CLOSED", arrived=["a", "b"], tested=TESTED), a_round(1, "OPEN", arrived=["a"]), held_out=[0.625]
    )
    console = Console(file=io.StringIO(), width=80)

    console.print(table(shown))

    lines = [line.replace("│", " ").split() for line in console.file.getvalue().splitlines()]
    assert ["Round", "2", "of", "5"] in lines
    assert ["1", "30", "answered", "1.000", "0.500"] in lines
    assert ["2", "10", "awaited", "0.200", "0.900"] in lines
    assert ["weighted", "40", "0.800", "0.600"] in lines
    assert "0.625" in console.file.getvalue()


def test_plain_lines_tell_of_each_round_once(capsys):
    with PlainLines() as screen:
        screen.show(progress_of())
        screen.show(progress_of(held_out=[0.5]))
        screen.show(progress_of(held_out=[0.5]))
        screen.show(progress_of(held_out=[0.5, 0.75, 0.875]))

    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(":")[0] for line in printed.err.splitlines()] == [f"round {number} of 5" for number in (1, 2, 3)]
