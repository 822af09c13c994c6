"""The ledger: a signed Merkle log of what the lake took, so that nothing is altered, cut or left out unseen.
Counterpart: `store.lake`, whose transaction it writes in; `verify` needs neither of them."""
