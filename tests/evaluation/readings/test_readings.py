"""Questions with answers that were found by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_jax.evaluation.readings.calendars import calendar_arithmetic
from dcft_jax.evaluation.readings.families import aiw, family_relationships
from dcft_jax.evaluation.readings.intervals import time_intervals
from dcft_jax.evaluation.readings.numbers import base_conversion, simple_geometry
from dcft_jax.evaluation.readings.programs import bf, run

WEEKDAY = "Name the day of the week in full."


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        # 4 July 2022 was a Monday.
        ("What day of the week was July 4, 2022? " + WEEKDAY, {"Monday"}),
        ("On which weekday did July 5, 2022 fall? " + WEEKDAY, {"Tuesday"}),
        ("Name the day of the week for 07/20/2022. " + WEEKDAY, {"Wednesday"}),
        # 4 July or 7 April.
        ("Name the day of the week for 07/04/2022. " + WEEKDAY, {"Monday", "Thursday"}),
        ("Name the day of the week for 07/07/2022. " + WEEKDAY, {"Thursday"}),
        (
            "If today is Monday, July 4, 2022, what day of the week will it be in 10 "
            "days? " + WEEKDAY,
            {"Thursday"},
        ),
        (
            "Starting from Monday, July 4, 2022, which weekday falls after a 8-day "
            "jump? " + WEEKDAY,
            {"Tuesday"},
        ),
        (
            "Count backward 8 days from Monday, July 4, 2022 - what's the weekday? "
            + WEEKDAY,
            {"Sunday"},
        ),
        (
            "If today is Sunday, July 4, 2022, what day of the week was it 1 days ago?",
            set(),  # it was no Sunday
        ),
        ("Is 1900 a leap year? Answer with Yes or No.", {"No"}),
        ("Determine if the year 2000 is a leap year. Answer with Yes or No.", {"Yes"}),
        (
            "Given that January 1 fell on a Monday, which weekday occurs on February "
            "28? " + WEEKDAY,
            {"Wednesday"},
        ),
        (
            "In a year where Monday is January 1st, name the weekday of March 1. "
            + WEEKDAY,
            {"Thursday", "Friday"},
        ),
        (
            "Determine the day of the month for the second Monday in July 2022. Answer "
            "with a number. Answer with -1 if the ordinal does not exist in the month.",
            {"11"},
        ),
        (
            "In July 2022, if an event recurs on the last Monday, what is the date "
            "(day of the month) of the event?",
            {"25"},
        ),
        (
            "Count the occurrences of Monday from Monday, July 4 to Monday, July 18, "
            "2022 (including both start and end dates). Answer with a number.",
            {"3"},
        ),
        (
            "How many business days (Monday-Friday) are there from Friday, July 1, "
            "2022 to Monday, July 4, 2022 (inclusive of both dates)? Write the number.",
            {"2"},
        ),
        (
            # The end lies in 2023, and the generator writes 2022.
            "Count the weekdays (excluding weekends) from Saturday, December 24 to "
            "Tuesday, January 31, 2022 (including both start and end dates).",
            set(),
        ),
        ("How are you?", set()),
    ],
)
def test_calendar(question, answers):
    assert calendar_arithmetic(question) == answers


@pytest.mark.parametrize(
    ("start", "end", "form", "answers"),
    [
        ("09:30", "11:15", "HH:MM", {"01:45"}),
        ("23:30", "00:00", "HH:MM", set()),
        ("00:36:31", "13:33:02", "HH:MM:SS", {"12:56:31"}),
        ("2024-02-28", "2024-03-01", "D days", {"2 days"}),
        ("10 March 2023", "11 March 2023", "D days", {"1 days"}),
        ("01/02/2023", "01/12/2023", "D days", {"10 days", "303 days"}),
        ("01/20/2023", "01/30/2023", "D days", {"10 days"}),
        (
            "2024-01-15 (Monday) 14:00:00 +0000",
            "2024-01-16 (Tuesday) 14:00:30 +0100",
            "D days, HH:MM:SS",
            {"0 days, 23:00:30"},
        ),
        (
            "Monday, January 15, 2024 at 14:30",
            "Tuesday, January 16, 2024 at 15:45",
            "D days, HH:MM",
            {"1 days, 01:15"},
        ),
        (
            "2024-01-15 14:00:00",
            "2024-01-15 14:00:40",
            "D days, HH:MM",
            {"0 days, 00:00", "0 days, 00:01"},
        ),
        (
            "2024-01-15 14:00:00",
            "2024-01-15 14:00:20",
            "D days, HH:MM",
            {"0 days, 00:00"},
        ),
        ("02:33:31.649", "23:41:23.989", "HH:MM:SS.mmm", set()),
    ],
)
def test_intervals_in_every_wording(start, end, form, answers):
    wordings = [
        f"What is the duration between {start} and {end}? Please answer in {form}.",
        f"How much time elapsed from {start} to {end}? Give your answer in {form}.",
        f"A flight departed at {start} and arrived at {end}. How long was the flight? "
        f"Answer in {form}.",
        f"Calculate the time difference between {start} and {end}. Express the result "
        f"in {form}.",
        f"A conference call began at {start} and ended at {end}. How long was the "
        f"conference? Answer in {form}.",
    ]
    for question in wordings:
        assert time_intervals(question) == answers, question


STORY = (
    "John is married to Mary. They have children called Peter, Anna and Karen. Peter "
    "is married to Emma. They have a child called Lucy.\n\n"
)


@pytest.mark.parametrize(
    ("first", "second", "answers"),
    [
        ("John", "Peter", {"father"}),
        ("Anna", "Mary", {"daughter"}),
        ("Peter", "Emma", {"husband"}),
        ("Karen", "Anna", {"sister"}),
        ("Mary", "Lucy", {"grandmother"}),
        ("Lucy", "John", {"granddaughter"}),
        ("Anna", "Lucy", {"aunt"}),
        ("Lucy", "Anna", {"niece"}),
        ("John", "Emma", {"father-in-law"}),
        ("Emma", "John", {"daughter-in-law"}),
        ("Emma", "Anna", {"sister-in-law"}),
        ("John", "John", set()),
        ("Sky", "John", set()),  # may be a man or a woman
    ],
)
def test_families(first, second, answers):
    for question in (
        f"What is {first} to {second}? Respond only with the word.",
        f"How is {first} related to {second}? Provide the relationship in one word.",
        f"What relation is {first} to {second}? Answer with a single word.",
    ):
        assert family_relationships(STORY + question) == answers


def test_sisters_and_friends():
    sisters = (
        "Alice has 3 brothers and she also has 1 sisters. How many sisters does {}'s "
        "brother have?"
    )
    assert aiw(sisters.format("Alice")) == {"2"}
    assert aiw(sisters.format("Bob")) == set()
    friends = (
        "Alice has 5 male friends and she also has 4 female friends. They all are "
        "friends with each other and have no other friends aside. How many female "
        "friends does Bob, a male friend of {}, have?"
    )
    assert aiw(friends.format("Alice")) == {"5"}
    assert aiw(friends.format("Mary")) == set()


@given(st.integers(0, 10**6), st.integers(2, 16), st.integers(2, 16))
def test_bases(number, source, target):
    names = {2: "binary", 16: "hexadecimal"}
    source_name, target_name = (
        names.get(base, f"base-{base}") for base in (source, target)
    )

    def answers(written: str) -> set[str]:
        return base_conversion(
            f"Now, convert the {source_name} number {written} to {target_name}\n"
        )

    (converted,) = answers(base_conversion_of(number, source))
    assert int(converted, target) == number
    assert answers("") == set()


def base_conversion_of(number: int, base: int) -> str:
    digits = "0123456789abcdef"
    head = base_conversion_of(number // base, base) if number >= base else ""
    return head + digits[number % base]


@pytest.mark.parametrize(
    ("sides", "angles", "answers"),
    [
        ("3 sides", "60.0°, 60.0°", {"60"}),
        ("4 sides", "90.0°, 90.0°, 90.5°", {"89.5"}),
        ("4 sides", "90.0°, 90.0°", set()),  # one is missing
        ("6-gon", "22.0°, 40.0°, 151.0°, 165.0°, 99.0°", set()),  # 243 is not convex
        ("3 sides", "90.0°, 90.0°", set()),
    ],
)
def test_polygons(sides, angles, answers):
    question = f"A convex polygon has {sides}. The interior angles are: {angles}. Find"
    assert simple_geometry(question) == answers


HELLO = (
    "++++++++[>++++[>++>+++>+++>+<<<<-]>+>+>->>+[<]<-]>>.>---.+++++++..+++.>>.<-.<.+++."
    "------.--------.>>+."
)


def test_programs():
    assert run(HELLO) == "Hello World!"
    assert bf(f"What is the output?\n\n{HELLO}\n\nOnly that.") == {"Hello World!"}
    assert run("-.") == "\xff", "cells wrap around"
    for endless, unbalanced in (("+[]", "+]"), ("+[>+]", "[")):
        assert run(endless) is run(unbalanced) is None
    assert run("<") is None
    assert bf("What is this?") == set()
