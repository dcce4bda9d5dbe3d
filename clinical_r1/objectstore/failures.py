"""How a store says no. No message carries what is in an object."""

from clinical_r1.errors import UserError


class NotFound(UserError):  # noqa: N818
    """There is no such object."""


class Conflict(UserError):  # noqa: N818
    """A conditional write came too late: the object is there already, or is not the one that was read."""


class StoreRefused(UserError):  # noqa: N818
    """Wrong credentials, no right, no bucket, a clock that is off: trying again does not help."""


class StoreFull(UserError):  # noqa: N818
    """No space left, or the bucket's quota is used up."""


class StoreUnavailable(UserError):  # noqa: N818
    """No usable answer within the patience that was given; what was finished stays finished."""


class Damaged(UserError):  # noqa: N818
    """An object is not what its manifest says."""


class Unreadable(UserError):  # noqa: N818
    """A manifest or an alias file is not what this version of the code writes."""
