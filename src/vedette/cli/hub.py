"""The base install is agent and `replay`; what needs more says so, with the words that mend it.
Counterpart: pyproject's extra `hub`, which `make up` installs."""

from __future__ import annotations

from importlib.util import find_spec

from vedette.model.errors import VedetteError

_NEEDED = ("sqlalchemy", "alembic", "aiosmtplib", "httpx", "apprise", "jinja2")


def needs_hub(*libraries: str) -> None:
    """VedetteError where these libraries of the extra `hub` are not installed; none named = those `up` needs."""
    missing = [name for name in libraries or _NEEDED if find_spec(name) is None]
    if missing:
        raise VedetteError(
            f"this command needs the extra `hub` ({', '.join(missing)} not installed)",
            hint="pip install 'vedette[hub]'",
        )
