"""Findings become decisions, decisions become dropped packets: policy, ladder, allowlist, enforcers.
Counterpart: `detections` make the findings, `store` keeps the decisions, `app` commits and then calls the enforcers."""
