"""Exercises: check cells of the notebooks, which say right, wrong and the likely mistake.

In reading order:

    checks           how an answer is judged and what is said
    first_answers    the right answers of notebook 0
    shop_answers     those of notebooks 1 to 3
    defence_answers  those of notebooks 4 to 8
    answers          what check cells import

It imports the modules at the top of the package only: what an answer needs, the check cell hands over.

To add an exercise: a stub with `answer = ...`, a check cell and a solution in the notebook, tagged as the others are,
and a function here under its number. Tests: tests/test_exercises.py runs every stub, check and solution.
"""
