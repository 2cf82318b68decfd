from __future__ import annotations

import pytest

from corral.engine.linked_list import LinkedList, Node


def test_order_and_removal_from_the_middle() -> None:
    nodes: LinkedList[Node] = LinkedList()
    a, b, c, d = Node(), Node(), Node(), Node()
    nodes.push_tail(b)
    nodes.push_head(a)
    nodes.push_tail(d)
    nodes.insert_before(d, c)
    assert list(nodes) == [a, b, c, d]
    nodes.remove(b)
    assert (list(nodes), len(nodes), b.is_linked) == ([a, c, d], 3, False)
    assert nodes.pop_head() is a
    assert nodes.head is c


def test_an_empty_list_has_no_head() -> None:
    nodes: LinkedList[Node] = LinkedList()
    assert (nodes.head, nodes.pop_head(), list(nodes)) == (None, None, [])


def test_a_node_is_in_one_list_at_a_time() -> None:
    nodes: LinkedList[Node] = LinkedList()
    node = Node()
    nodes.push_tail(node)
    with pytest.raises(ValueError, match="in a list already"):
        nodes.push_head(node)
    nodes.remove(node)
    with pytest.raises(ValueError, match="in no list"):
        nodes.remove(node)
    nodes.push_head(node)
    assert nodes.head is node
