"""Claims: one owner at a time, who is alive."""

import time
from threading import Barrier, Thread

import pytest
from waiting import until

from tdcompress.errors import BusyError, LostError
from tdcompress.stores.claims import Claim, Pace, Saved
from tdcompress.stores.repeat import every

PATIENT = Pace(beat=0.2, stale=60.0, keep=1.0)  # nothing becomes stale while a busy machine is elsewhere
SHORT = Pace(beat=0.2, stale=6.0, keep=1.0)  # for what has to: and still thirty signs of life may be late


def take(bucket, pace=PATIENT):
    return Claim.take(bucket, "claims/x.json", "train x", pace)


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


def test_signs_of_life_keep_it_and_without_them_it_is_taken_over_and_lost(bucket):
    first = take(bucket, SHORT)
    with every(SHORT.beat, first.beat):
        time.sleep(SHORT.stale + 2.0)
        with pytest.raises(BusyError):
            take(bucket, SHORT)
        assert not first.lost
    second = until(lambda: take(bucket, SHORT), BusyError)
    for do in (first.beat, first.release, lambda: first.keep({})):
        with pytest.raises(LostError, match="train x was taken over"):
            do()
    assert first.lost
    second.beat()
    assert not second.lost


def test_an_owner_that_could_not_say_that_it_lives_finds_out_by_its_own_clock(bucket, monkeypatch):
    first = take(bucket)
    now = time.monotonic()
    monkeypatch.setattr("tdcompress.stores.claims.time.monotonic", lambda: now + PATIENT.stale + 1)
    assert first.lost
    with pytest.raises(LostError):
        first.beat()


def test_a_claim_that_was_taken_over_early_is_lost_at_the_next_sign_of_life(bucket):
    first = take(bucket)
    found = bucket.read("claims/x.json")
    bucket.replace("claims/x.json", found.data.replace(first.token.encode(), b"another"), found.etag)
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


def test_a_claim_that_cannot_be_read_is_somebodys_until_it_is_stale(bucket):
    bucket.put("claims/x.json", b"{")
    with pytest.raises(BusyError, match="another process"):
        take(bucket)
    assert until(lambda: take(bucket, SHORT), BusyError).saved == {}
