"""Claims: one owner at a time, who is alive."""

import json
import time
from dataclasses import replace
from threading import Barrier, Thread
from types import SimpleNamespace

import pytest
from waiting import until

from tdcompress.errors import BusyError, LostError
from tdcompress.stores import claims
from tdcompress.stores.claims import Claim, Pace, Saved
from tdcompress.stores.repeat import every

PACE = Pace(beat=0.1, stale=60.0, keep=1.0)
NAME = "claims/x.json"


def take(bucket):
    return Claim.take(bucket, NAME, "train x", PACE)


class Clock:
    """Time that passes when it is told to: an owner's own clock, and the server's by the age of what was put."""

    def __init__(self, bucket, monkeypatch):
        self.now, self._put = time.monotonic(), {}
        monkeypatch.setattr(claims, "time", SimpleNamespace(monotonic=lambda: self.now, strftime=time.strftime))
        for name in ("put", "create", "replace"):
            monkeypatch.setattr(bucket, name, self._noted(getattr(bucket, name)))
        read = bucket.read
        monkeypatch.setattr(bucket, "read", lambda name: self._aged(name, read(name)))

    def _noted(self, put):
        def noted(name, *arguments):
            etag = put(name, *arguments)
            if etag is not None or put.__name__ == "put":
                self._put[name] = self.now
            return etag

        return noted

    def _aged(self, name, found):
        return None if found is None else replace(found, age=self.now - self._put[name])


@pytest.fixture
def clock(bucket, monkeypatch):
    return Clock(bucket, monkeypatch)


def test_what_is_claimed_is_busy_until_it_is_released(bucket):
    first = take(bucket)
    with pytest.raises(BusyError, match=r"train x is in use by process \d+ on .* since .*taken over after 60 s"):
        take(bucket)
    first.keep({"a": Saved(object="o", sha256="0")})
    first.release()
    second = take(bucket)
    assert second.before.token == first.token
    assert second.saved == {"a": Saved(object="o", sha256="0")}
    assert not second.lost


def test_of_many_one_gets_it(bucket):
    got, busy, together = [], [], Barrier(6)

    def work():
        together.wait()
        try:
            got.append(take(bucket))
        except BusyError:
            busy.append(1)

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(busy)) == (1, 5)


def test_signs_of_life_keep_it_and_without_them_it_is_taken_over_and_lost(bucket, clock):
    first = take(bucket)
    for _ in range(3):
        clock.now += PACE.stale - 1.0
        first.beat()
        with pytest.raises(BusyError):
            take(bucket)
    assert not first.lost
    clock.now += PACE.stale + 1.0  # as the server tells it, in whole seconds: a moment more than `stale`, perhaps
    with pytest.raises(BusyError):
        take(bucket)
    clock.now += 0.5
    second = take(bucket)
    for do in (first.beat, first.release, lambda: first.keep({})):
        with pytest.raises(LostError, match="train x was taken over"):
            do()
    assert first.lost
    second.beat()
    assert not second.lost


def test_signs_of_life_are_given_every_few_moments(bucket):
    def given():
        assert json.loads(bucket.read(NAME).data)["beat"] >= 3

    first = take(bucket)
    with every(PACE.beat, first.beat):
        until(given)


def test_an_owner_that_could_not_say_that_it_lives_finds_out_by_its_own_clock(bucket, clock):
    first = take(bucket)
    clock.now += PACE.stale + 1.0
    assert first.lost
    with pytest.raises(LostError):
        first.beat()


def test_a_claim_that_was_taken_over_early_is_lost_at_the_next_sign_of_life(bucket):
    first = take(bucket)
    found = bucket.read(NAME)
    bucket.replace(NAME, found.data.replace(first.token.encode(), b"another"), found.etag)
    assert not first.lost
    with pytest.raises(LostError):
        first.beat()
    assert first.lost


def test_an_answer_that_got_lost_loses_no_claim(bucket, monkeypatch):
    replace, create = bucket.replace, bucket.create
    for name, put in (("create", create), ("replace", replace)):
        monkeypatch.setattr(bucket, name, lambda *arguments, put=put: put(*arguments) and None)  # done, but told refused
    claim = take(bucket)
    claim.beat()
    monkeypatch.setattr(bucket, "replace", replace)
    claim.keep({"a": Saved(object="o", sha256="0")})
    claim.release()
    assert take(bucket).saved.keys() == {"a"}


def test_a_claim_that_cannot_be_read_is_somebodys_until_it_is_stale(bucket, clock):
    bucket.put(NAME, b"{")
    with pytest.raises(BusyError, match="another process"):
        take(bucket)
    clock.now += PACE.stale + 1.5
    assert take(bucket).saved == {}
