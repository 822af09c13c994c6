"""The steps themselves, in the order of their numbers; a step that was released is never edited.
Counterpart: `store.tables`, whose HEAD names the last of them."""
