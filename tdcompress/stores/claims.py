"""A claim: an object that says who makes something, and that its owner is alive.

It is written if absent, and replaced only by a process that has read it. Its owner replaces it every few seconds. Somebody else
does when that has not happened for too long. How long that is the server's clock says, so the clocks of machines do not matter.
An owner whose claim was taken over finds out at its next sign of life, or by its own clock when it could give none.
"""

import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from tdcompress.codec import decode_json, encode
from tdcompress.errors import BusyError, LostError
from tdcompress.stores.bucket import Bucket, Object, to_bytes

_WHOLE_SECOND = 1.0  # HTTP tells times in these, so that an age can be up to so much less than what is read of it


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often an owner does what.

    Attributes:
        beat: seconds between two signs of life.
        stale: seconds without one after which others take over.
        keep: seconds between two looks for new checkpoints to upload.
    """

    beat: float = 5.0
    stale: float = 30.0
    keep: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A file that goes on with a claim: its object's name, and its sha256."""

    object: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ClaimState:
    """What the object of a claim says.

    Attributes:
        owner: for people; None = nobody's.
        token: of the last owner, random.
        beat: signs of life so far, so that no two states are alike.
        saved: by relative name, what the next owner goes on from.
    """

    owner: str | None
    token: str
    beat: int = 0
    saved: Mapping[str, Saved] = field(default_factory=dict)


class Claim:
    """Something that this process owns; `take` it. Its methods may be called by several threads.

    Args:
        bucket: where claims are.
        name: of the object.
        what: what is owned, for messages.
        pace: how often it gives a sign of life.
        before: what the claim said before; None = it is the first.
        heard: when this was known to be true, in seconds of the monotonic clock.

    Attributes:
        token: names this owner among all.
        before: what the claim said before, or None where it is the first.
    """

    def __init__(self, bucket: Bucket, name: str, what: str, pace: Pace, before: ClaimState | None, heard: float) -> None:
        self.token = secrets.token_hex(8)
        self.before = before
        self._bucket, self._name, self._what, self._pace = bucket, name, what, pace
        owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        self._state = ClaimState(owner=owner, token=self.token, saved=before.saved if before else {})
        self._etag = ""
        self._heard = heard
        self._lost = False
        self._lock = Lock()

    @classmethod
    def take(cls, bucket: Bucket, name: str, what: str, pace: Pace) -> "Claim":
        """Own something that nobody owns, or whose owner is not heard of any more.

        Args:
            bucket: where claims are.
            name: of the object.
            what: what is owned, for messages.
            pace: of its signs of life.

        Raises:
            BusyError: another process owns it, or was faster.
        """
        heard = time.monotonic()
        found = bucket.read(name)
        before = None if found is None else _state(found)
        if found is not None and before is not None and before.owner is not None and found.age <= pace.stale + _WHOLE_SECOND:
            raise BusyError(
                f"{what} is in use by {before.owner}; wait for it, or stop it and run again "
                f"(without a sign of life it is taken over after {pace.stale:g} s)"
            )
        claim = cls(bucket, name, what, pace, before, heard)
        data = to_bytes(encode(claim._state))
        etag = bucket.create(name, data) if found is None else bucket.replace(name, data, found.etag)
        if etag is None and (known := claim._own()) is not None:
            etag = known.etag
        if etag is None:
            raise BusyError(f"{what} is in use by another process, which was faster; wait for it, or stop it and run again")
        claim._etag = etag
        return claim

    @property
    def lost(self) -> bool:
        """Whether another process may own it by now."""
        return self._lost or time.monotonic() - self._heard > self._pace.stale

    @property
    def saved(self) -> Mapping[str, Saved]:
        """What the next owner would go on from."""
        return self._state.saved

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            LostError: another process owns it.
            StoreError: the server cannot be reached; the claim is not lost yet.
        """
        self._write()

    def keep(self, saved: Mapping[str, Saved]) -> None:
        """Say what the next owner goes on from; raises as ``beat`` does."""
        self._write(saved=saved)

    def release(self) -> None:
        """Own it no more; raises as ``beat`` does."""
        self._write(owner=None)

    def check(self) -> None:
        """Go on only as its owner.

        Raises:
            LostError: another process may own it.
        """
        if self.lost:
            raise LostError(
                f"{self._what} was taken over by another process: this one gave no sign of life for {self._pace.stale:g} s; "
                "what it made since is dropped: run the same command again"
            )

    def _write(self, **changes: Any) -> None:
        with self._lock:
            self.check()
            now = time.monotonic()
            self._state = replace(self._state, beat=self._state.beat + 1, **changes)
            data = to_bytes(encode(self._state))
            etag = self._bucket.replace(self._name, data, self._etag)
            if etag is None and (known := self._own()) is not None:
                etag = known.etag if known.data == data else self._bucket.replace(self._name, data, known.etag)
            if etag is None:
                self._lost = True
                self.check()
            else:
                self._etag, self._heard = etag, now

    def _own(self) -> Object | None:
        """The object, if this owner wrote it: a put whose answer was lost on the way was done all the same."""
        found = self._bucket.read(self._name)
        return found if found is not None and _state(found).token == self.token else None


def _state(found: Object) -> ClaimState:
    try:
        return decode_json(ClaimState, found.data, "claim")
    except ValueError:
        return ClaimState(owner="another process", token="")
