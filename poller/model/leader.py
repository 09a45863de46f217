"""Leadership of this process, the lock that decides it, and the lock's errors."""

from __future__ import annotations

from typing import Protocol

from poller.model.errors import PollerError


class Leadership(Protocol):
    """The permission to poll and export, as those who do it see it.

    They read it again when they have a result: the process may have been stopped in between, for any time.
    """

    @property
    def leads(self) -> bool:
        """Whether this process may poll and export values at this moment."""


class _NoElection:
    leads = True


NO_ELECTION: Leadership = _NoElection()
"""The leadership of a process without an election."""


class LockError(PollerError):
    """An attempt on the leader lock has failed."""

    def __init__(self, message: str, *, lost: bool = False, hint: str | None = None) -> None:
        """`lost` means that this process certainly does not hold the lock any more."""
        super().__init__(message)
        self.lost = lost
        self.hint = hint
        """The fix, if known."""


class LeaderLock(Protocol):
    """A lock with a lease: it is free again some time after its holder was last confirmed.

    Only one thread at a time calls the methods; they block.
    """

    @property
    def name(self) -> str:
        """Name of the election, without secrets, such as `kubernetes:obscura-poller`."""

    @property
    def identity(self) -> str:
        """This process as other processes see it as the holder."""

    @property
    def holder(self) -> str:
        """The process that held the lock at the last attempt to acquire it; empty if none or unknown."""

    def acquire(self) -> bool:
        """Try to become the holder; return whether this process is the holder now.

        A held lock that its holder does not confirm becomes free after the lease. Raises LockError if the
        engine does not answer or refuses, ConfigError if the lock can never work there.
        """

    def check(self) -> None:
        """Check that the lock can work, and read `holder`; acquires nothing, raises as `acquire` does."""

    def renew(self, within: float) -> None:
        """Confirm that this process holds the lock, and extend the lease by its full length from now.

        One attempt, which ends within so many seconds. Raises LockError, with `lost` if another process holds
        the lock or the lock has ended; otherwise the caller tries again until its deadline.
        """

    def may_be_lost(self) -> bool:
        """Return, without waiting, whether the holder should confirm now because the lock may be lost."""

    def release(self) -> None:
        """Free the lock if this process holds it, and close the connection; raises LockError."""
