"""Rule languages compiled into model rules, and our own packs with their cases inside.
Counterpart: `detections` runs what comes out and knows no rule language."""
