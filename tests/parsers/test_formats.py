"""How many shapes a format has; what a shape matches is tested beside `readings`, mistakes beside `registry`.
Counterpart: vedette.parsers.formats."""

from __future__ import annotations

from vedette.model.errors import Location
from vedette.parsers.formats import compile_format

HERE = Location("x.yml", 1, 1)


def test_shapes_are_as_many_as_choices():
    assert len(compile_format("a<b><c><d>", HERE)) == 8
    assert len(compile_format("a< >b< >", HERE)) == 4
