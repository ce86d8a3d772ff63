"""The training-loop contract, executable: scenarios, traces, clauses, verdicts.

This package is imported by two worlds. The producer half (`scenario`, `trace`, `described`, `recorder`,
`adapters`, `produce`) is loaded into the interpreter of the trainer under test, which may be years
old; the checker half needs neither torch nor a trainer. So nothing is imported here.
"""

__version__ = "0.1.0"
