"""Turns of trainings that share a process: one at a time, shared early, and torch's generators as they were."""

import threading

import pytest
import torch

from tdcompress.train.together import alone, own_stream, share

CPU = torch.device("cpu")


def in_thread(function) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_a_second_thread_waits_for_its_turn() -> None:
    entered, order = threading.Event(), []

    def second() -> None:
        with alone(CPU):
            order.append("second")
            entered.set()

    with alone(CPU):
        thread = in_thread(second)
        assert not entered.wait(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_share_lets_the_next_one_in_and_a_later_block_is_a_new_turn() -> None:
    inside, leave = threading.Event(), threading.Event()

    def second() -> None:
        with alone(CPU):
            inside.set()
            leave.wait(10)

    with alone(CPU):
        thread = in_thread(second)
        with alone(CPU):  # a part of the same turn
            share()
            assert inside.wait(10)
        leave.set()
        with alone(CPU):
            assert not thread.is_alive() or thread.join(10) is None
            refused = in_thread(second)
            inside.clear()
            assert not inside.wait(0.2)
        assert inside.wait(10)
    refused.join(10)


def test_generators_are_given_back_at_the_end_or_when_shared() -> None:
    state = torch.get_rng_state()
    with alone(CPU):
        torch.rand(3)
        with alone(CPU):
            torch.rand(3)
        assert not torch.equal(torch.get_rng_state(), state)
        share()
        assert torch.equal(torch.get_rng_state(), state)
        share()  # nothing is left to share
    with alone(CPU):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_ends_the_turn() -> None:
    with pytest.raises(ValueError, match="wrong"), alone(CPU):
        raise ValueError("wrong")
    taken = threading.Event()

    def second() -> None:
        with alone(CPU):
            taken.set()

    in_thread(second)
    assert taken.wait(10)


def test_a_cpu_has_no_streams() -> None:
    with own_stream(CPU):
        assert torch.ones(2).sum() == 2
