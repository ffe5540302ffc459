import pytest

from xinglin.serve.gate import Full, Gate


def test_clients_take_turns_however_many_requests_one_of_them_sends() -> None:
    gate = Gate(slots=1, waiting=10)
    running = gate.enter("greedy")
    waiting = {name: gate.enter(name[0]) for name in ("g1", "g2", "g3", "m1", "n1")}
    order = []
    while gate.running:
        gate.leave(running)
        found = [name for name, ticket in waiting.items() if ticket.admitted.is_set()]
        if found:
            running = waiting.pop(found[0])
            order.append(found[0])
    assert order == ["g1", "m1", "n1", "g2", "g3"]


def test_the_queue_is_bounded_and_a_free_slot_counts_as_room() -> None:
    gate = Gate(slots=1, waiting=1)
    first = gate.enter("a")
    gate.enter("a")
    with pytest.raises(Full):
        gate.enter("b")
    gate.leave(first)
    assert (gate.running, gate.waiting) == (1, 0)
    assert Gate(slots=1, waiting=0).enter("a").admitted.is_set()


def test_leaving_the_queue_before_ones_turn_frees_the_place_and_no_slot() -> None:
    gate = Gate(slots=1, waiting=2)
    running, gone, last = gate.enter("a"), gate.enter("b"), gate.enter("c")
    gate.leave(gone)
    assert (gate.running, gate.waiting) == (1, 1)
    gate.leave(running)
    assert last.admitted.is_set() and not gone.admitted.is_set()
    gate.leave(last)
    assert (gate.running, gate.waiting, gate.lines) == (0, 0, {})
