"""Runs the model's rules over whole batches: matching is pure, correlation keeps the windows.
Counterpart: `rules` compile what runs here; `alerts` and `respond` act on the findings that come out."""
