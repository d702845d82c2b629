"""A mapping that cannot be changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value", covariant=True)


class FrozenMapping(Mapping[_Key, _Value]):
    """A dict that cannot be changed.

    It keeps the order of its items, equals a dict of the same items, has a hash if all its values have one,
    and can be copied and pickled.

    Args:
        items: what it holds; a copy is kept, so later changes of these do not reach it.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[_Key, _Value]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: _Key) -> _Value:
        return self._items[key]

    def __iter__(self) -> Iterator[_Key]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)
