"""Measures this program and the usual tutorial side by side on the machine at hand.

`questions.py`, `growth.py` and `machine.py` hold the questions that the measurements answer.
`program.py` and `tutorial.py` hold the work of the two sides, `data.py` their input. `measure.py`
times the work, and `table.py` prints the result.
"""
