"""`manage.py llm_token create|list|revoke`: keys of the REST API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from llm_wrapper import tokens
from llm_wrapper.models import ApiToken


class Command(BaseCommand):
    requires_system_checks = ()  # a token can be revoked whatever else is wrong with the site
    help = "Make a key of the REST API (shown once), list the tokens, or revoke one."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="Make a token; its key goes to stdout, and is not shown again.")
        create.add_argument("--user", required=True, help="User name of its owner, as whom it acts.")
        create.add_argument("--name", default="made by llm_token", help="What it is for.")
        create.add_argument(
            "--scope",
            action="append",
            choices=ApiToken.Scope.values,
            help="What it may do; may be given twice. Default: everything.",
        )
        create.add_argument("--days", type=float, help="Days until it expires; never by default.")
        listing = actions.add_parser("list", help="Show the tokens: id, beginning of the key, owner, state, last use.")
        listing.add_argument("--user", help="Only those of this user.")
        revoking = actions.add_parser("revoke", help="Revoke a token for good.")
        revoking.add_argument("id", type=int, help="Its id, as `list` shows it.")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        if action == "create":
            self.create(**{key: options[key] for key in ("user", "name", "scope", "days")})
        elif action == "list":
            self.show(options["user"])
        else:
            self.revoke(options["id"])

    def create(self, user: str, name: str, scope: list[str] | None, days: float | None) -> None:
        if days is not None and not 0 < days <= 36_500:
            raise CommandError(f"--days must be more than 0 and at most 36500, not {days}.")
        owner = _user(user)
        if not owner.is_active:
            raise CommandError(f"User {user!r} is not active, so a token of theirs would be refused.")
        expires = None if days is None else timezone.now() + timedelta(days=days)
        token, key = tokens.make_token(owner, name, scopes=scope, expires_at=expires)
        self.stderr.write(
            f"Token {token.pk} of {user}: {', '.join(token.scopes)}; "
            f"{f'expires {expires:%Y-%m-%d %H:%M} UTC' if expires else 'does not expire'}. "
            "Its key, which is not shown again:"
        )
        self.stdout.write(key)

    def show(self, user: str | None) -> None:
        rows = ApiToken.objects.select_related("user")
        if user is not None:
            rows = rows.filter(user=_user(user))
        now = timezone.now()
        for row in rows:
            used = f"used {row.last_used_at:%Y-%m-%d %H:%M}" if row.last_used_at else "never used"
            self.stdout.write(
                f"{row.pk}  {row.prefix}…  {row.user}  {'+'.join(row.scopes)}  {tokens.state_of(row, now)}  {used}  "
                f"{row.name}"
            )
        if not rows:
            self.stdout.write("No tokens.")

    def revoke(self, token_id: int) -> None:
        rows = ApiToken.objects.filter(pk=token_id)
        if not rows:
            raise CommandError(f"There is no token {token_id}. `manage.py llm_token list` shows them.")
        self.stdout.write(f"Token {token_id} {'is revoked' if tokens.revoke(rows) else 'was revoked before'}.")


def _user(name: str) -> Any:
    users = get_user_model()
    try:
        return users._default_manager.get_by_natural_key(name)
    except users.DoesNotExist:
        raise CommandError(f"There is no user {name!r}.") from None
