"""What the engine costs beside a loop written by hand; `docs/benchmarks.md` has the figures.

    python -m tests.bench                 # the table, some minutes
    python -m tests.bench --quick         # fewer pairs
    python -m tests.bench --json out.json

`rows.py` is the table: what is run, by a trainer and by hand, and the limits. `modules.py` is what is trained,
`by_hand.py` the loops written by hand, `engines.py` the trainers with Lightning's interface, `peers.py` those with
another, `measure.py` the ratios and counts.
"""
