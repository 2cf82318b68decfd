"""An intrusive doubly linked list: every operation, removal from the middle too, is O(1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar, cast


class Node:
    """Base of what can be in one list at a time; outside of a list both links point to the node itself."""

    __slots__ = ("next_node", "prev_node")

    def __init__(self) -> None:
        self.prev_node: Node = self
        self.next_node: Node = self

    @property
    def is_linked(self) -> bool:
        return self.next_node is not self


T = TypeVar("T", bound=Node)


class LinkedList(Generic[T]):
    """Nodes from head to tail around one sentinel."""

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root = Node()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        node = self._root.next_node
        while node is not self._root:
            yield cast(T, node)
            node = node.next_node

    @property
    def head(self) -> T | None:
        return cast(T, self._root.next_node) if self._size else None

    @property
    def tail(self) -> T | None:
        return cast(T, self._root.prev_node) if self._size else None

    def push_head(self, node: T) -> None:
        self._link(node, before=self._root.next_node)

    def push_tail(self, node: T) -> None:
        self._link(node, before=self._root)

    def insert_before(self, place: T, node: T) -> None:
        """Link `node` in front of `place`, which is in this list."""
        self._link(node, before=place)

    def remove(self, node: T) -> None:
        """Unlink a node of this list. Raises ValueError if it is in none."""
        if node.next_node is node:
            raise ValueError("the node to remove is in no list")
        node.prev_node.next_node = node.next_node
        node.next_node.prev_node = node.prev_node
        node.prev_node = node.next_node = node
        self._size -= 1

    def pop_head(self) -> T | None:
        """Remove and return the head; None when the list is empty."""
        node = self.head
        if node is not None:
            self.remove(node)
        return node

    def _link(self, node: T, *, before: Node) -> None:
        if node.next_node is not node:
            raise ValueError("the node to insert is in a list already")
        node.prev_node, node.next_node = before.prev_node, before
        before.prev_node.next_node = node
        before.prev_node = node
        self._size += 1
