"""Every error of the package with its stable code: docs/errors.md; the same as src/errors.ts."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ArenaFullError",
    "BindRefusedError",
    "CancelledError",
    "CheckpointInvalidError",
    "CheckpointNotFoundError",
    "CheckpointUnsafeError",
    "ExtensionMissingError",
    "InternalError",
    "InvalidArgumentError",
    "KernelUnavailableError",
    "MarlinError",
    "MessageTooLargeError",
    "ModuleNotFound",
    "NotSerializableError",
    "OutOfMemoryError",
    "ProtocolError",
    "StaleTensorError",
    "TooManyCallsError",
    "UnknownHandleError",
    "UnknownMethodError",
    "UnsupportedError",
    "VersionMismatchError",
]


class MarlinError(Exception):
    """Base of all errors raised by marlin; `details` holds plain values for programs."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.details = details


class InvalidArgumentError(MarlinError, ValueError):
    code = "invalid_argument"


class UnsupportedError(MarlinError):
    code = "unsupported"


class ExtensionMissingError(MarlinError, ImportError):
    code = "extension_missing"


class KernelUnavailableError(MarlinError):
    code = "kernel_unavailable"


class CheckpointNotFoundError(MarlinError, FileNotFoundError):
    code = "checkpoint_not_found"


class CheckpointInvalidError(MarlinError):
    code = "checkpoint_invalid"


class CheckpointUnsafeError(MarlinError):
    code = "checkpoint_unsafe"


class ModuleNotFound(MarlinError, ImportError):
    code = "module_not_found"


class UnknownMethodError(MarlinError):
    code = "unknown_method"


class UnknownHandleError(MarlinError):
    code = "unknown_handle"


class NotSerializableError(MarlinError, TypeError):
    code = "not_serializable"


class StaleTensorError(MarlinError):
    code = "stale_tensor"


class ArenaFullError(MarlinError, MemoryError):
    code = "arena_full"


class OutOfMemoryError(MarlinError, MemoryError):
    code = "out_of_memory"


class CancelledError(MarlinError):
    code = "cancelled"


class BindRefusedError(MarlinError):
    code = "bind_refused"


class VersionMismatchError(MarlinError):
    code = "version_mismatch"


class ProtocolError(MarlinError):
    code = "protocol_violation"


class MessageTooLargeError(MarlinError):
    code = "message_too_large"


class TooManyCallsError(MarlinError):
    code = "too_many_calls"


class InternalError(MarlinError):
    code = "internal"
