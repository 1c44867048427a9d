"""`quicbus permissions`: look at the table of permissions, and ask it why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from quicbus.commands import common_options, settings_of
from quicbus.exceptions import InvalidSetting
from quicbus.identity.names import check_name
from quicbus.topics import check_topic, parse_filter
from quicbus_broker.permissions.explain import explain
from quicbus_broker.permissions.grants import Grant
from quicbus_broker.permissions.read_table import TABLE_NAME, read_table
from quicbus_broker.permissions.source import permissions_path
from quicbus_broker.permissions.table import Action, Table
from quicbus_broker.settings import BrokerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quicbus_broker.permissions.table import Role

__all__ = ["permissions"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="See who may publish and subscribe to what, and why.")
def permissions() -> None:
    """See who may publish and subscribe to what, and why.

    The table [permissions] stands in quicbus.toml. These commands read the file; a broker that runs has what it read
    when it started, or at the last `quicbus reload`.
    """


def _table_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--permissions-file", metavar="PATH", help="File with the table, in place of quicbus.toml."),
        click.option("--data-dir", metavar="PATH", help="Data folder of the broker; without it the user's."),
        common_options,
    ):
        function = option(function)
    return function


@permissions.command(short_help="Tell whether a name may do something, and which line decides.")
@click.option("--as", "name", required=True, metavar="NAME", help="Name in the certificate of the client.")
@_JSON
@_table_options
@click.argument("action", type=click.Choice([action.value for action in Action]))
@click.argument("subject", metavar="TOPIC|FILTER")
def check(action: str, subject: str, name: str, as_json: bool, **options: Any) -> int:
    """Tell whether NAME may publish to a topic, or subscribe to a filter, and which line of the file decides.

    Exit code 0 where it is allowed, 1 where it is not.
    """
    try:
        check_name(name)
    except InvalidSetting as error:
        raise InvalidSetting("--as", error.why) from None
    if action == Action.PUBLISH:
        check_topic(subject)
    else:
        subject, _ = parse_filter(subject)
    explanation = explain(_read(options), name, Action(action), subject)
    click.echo(json.dumps(explanation.fields(), ensure_ascii=False) if as_json else str(explanation))
    return 0 if explanation.allowed else 1


@permissions.command(short_help="Show the roles, or what they allow one name.")
@click.option("--as", "name", metavar="NAME", help="Only what this name may do, with the name in its filters.")
@_JSON
@_table_options
def show(name: str | None, as_json: bool, **options: Any) -> int:
    """Show the roles and their filters with the lines on which they stand, or what NAME may do."""
    table = _read(options)
    if name is not None:
        grant = Grant(table, name)
        click.echo(json.dumps(_granted(grant)) if as_json else "\n".join(_granted_lines(grant)))
    else:
        click.echo(json.dumps(_fields(table)) if as_json else "\n".join(_lines(table)))
    return 0


def _read(options: dict[str, Any]) -> Table:
    settings = settings_of(BrokerSettings, options)
    path = permissions_path(settings)
    if settings.permissions_file is None and not path.exists():
        return Table()
    return read_table(path)


def _lines(table: Table) -> Iterator[str]:
    yield f"{TABLE_NAME}: {table}"
    for role in table.roles:
        yield f"role {role.name} ({table.where(role.line)}): {', '.join(role.match)}"
        for key, filters in _lists(role):
            yield from (f"  {key:<14} {filter:<32} line {line}" for filter, line in filters)


def _granted_lines(grant: Grant) -> Iterator[str]:
    roles = ", ".join(role.name for role in grant.roles)
    default = "everything" if grant.table.allows_unmatched else "nothing"
    yield f"{grant.name}: " + (f"roles {roles}" if roles else f"no role, so {default} is allowed")
    for action in Action:
        for is_deny in (False, True):
            for filter in grant.filters(action, is_deny=is_deny):
                yield f"  {'deny_' * is_deny + action:<14} {filter}"


def _lists(role: Role) -> list[tuple[str, list[tuple[str, int]]]]:
    lists = {f"{action}": role.allowed(action) for action in Action}
    lists |= {f"deny_{action}": role.denied(action) for action in Action}
    return [(key, [(rule.filter, rule.line) for rule in rules]) for key, rules in lists.items()]


def _fields(table: Table) -> dict[str, Any]:
    return {
        "file": table.file or None,
        "restricts": table.restricts,
        "default": "allow" if table.allows_unmatched else "deny",
        "roles": [
            {
                "name": role.name,
                "line": role.line,
                "match": role.match,
                **{key: [{"filter": filter, "line": line} for filter, line in rules] for key, rules in _lists(role)},
            }
            for role in table.roles
        ],
    }


def _granted(grant: Grant) -> dict[str, Any]:
    return {
        "name": grant.name,
        "roles": [role.name for role in grant.roles],
        "default": "allow" if grant.table.allows_unmatched else "deny",
        **{
            f"{'deny_' * is_deny}{action}": grant.filters(action, is_deny=is_deny)
            for action in Action
            for is_deny in (False, True)
        },
    }
