"""The world as batches: one module per thing that is read, each implementing model.protocols.Source.
Counterpart: `app` builds sources from their settings and hands them `emit`; `parsers` read what they emit."""
