"""Measures this program and the usual tutorial side by side on the machine at hand.

`questions.py` lists what is measured. `program.py` and `tutorial.py` hold the work of the two
sides, `data.py` what they work on, `measure.py` times them, `table.py` writes the result.
"""
