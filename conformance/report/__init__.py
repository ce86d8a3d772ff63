"""The verdicts, told to a person at a terminal, a browser, a CI system and a program.

Every report takes the same three things: the runs, the clauses by id, and the profile's name. None adds
them up into a score: a trainer is described by where it departs, not by how often.
"""

from conformance.report.as_json import to_json
from conformance.report.html import render_html, write_html
from conformance.report.junit import to_junit
from conformance.report.terminal import print_summary

__all__ = ["print_summary", "render_html", "to_json", "to_junit", "write_html"]
