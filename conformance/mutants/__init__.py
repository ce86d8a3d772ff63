"""Trainers that are wrong in exactly one way, and the clause that must say so.

`engine.py` makes a trainer out of a patched copy of `refimpl`; `patches.py` finds what a patch replaces;
`generated.py` makes patches from the hook calls of its loops (drop, double, swap, move); the TOML files hold
the patches written by hand, a file per clause family; `selftest.py` runs them all. `operators.py` and `syntax.py` make
mutants of the whole engine, which `everywhere.py` tries on the scenarios that `reach.py` knows to execute them.
"""
