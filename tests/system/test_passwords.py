from __future__ import annotations

import pytest

from vedette.system.passwords import fits, hashed


@pytest.mark.parametrize("password", ["correct horse battery", "", "pässwörd 🐎", "no utf-8 \udcff", "a$b$c"])
def test_only_the_password_itself_fits(password: str) -> None:
    kept = hashed(password, 10)
    assert fits(password, kept)
    assert not fits(password + " ", kept)
    assert kept.startswith("scrypt$10$8$1$")
    assert password == "" or password not in kept
    assert hashed(password, 10) != kept, "each has a salt of its own"


def test_the_parameters_are_those_it_was_made_with() -> None:
    assert fits("secret", hashed("secret", 11))
    weaker = hashed("secret", 11).replace("$11$", "$10$")
    assert not fits("secret", weaker)


def test_another_kind_is_not_taken_for_a_wrong_password() -> None:
    with pytest.raises(ValueError, match="argon2"):
        fits("secret", hashed("secret", 10).replace("scrypt", "argon2"))
