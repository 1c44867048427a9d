"""Large tables of the own interest: the collector visits them once, not whenever a filter is added."""

from __future__ import annotations

import gc

from quicbus_broker.mesh.interest.tracked import TrackedDict


def test_a_table_of_strings_stays_where_the_collector_has_put_it() -> None:
    table: TrackedDict[tuple[str, str], bool] = TrackedDict()
    table["before", ""] = True
    gc.collect()
    table["after", "".join(("a", "b"))] = True
    young = [id(each) for generation in (0, 1) for each in gc.get_objects(generation)]
    assert gc.is_tracked(table)
    assert id(table) not in young
