"""Signatures of stored values, of records with effects, and of the captured outputs of steps, made with the user's signing key.

Loading a pickle executes code, so a pickle is only loaded if it is signed with this user's key.

The key consists of 32 random bytes in the file that ``STEPWELL_KEY_FILE`` names, by default ``stepwell/key`` in the user's configuration
directory. The key file is created at first use, and is readable only by its owner. People who share the key file, for example a team and its
CI, trust each other's values. A key file that its group can change, or to which users outside the group have any access, is refused. A
signature consists of the *name* of the key and an HMAC-SHA256. The name is the first eight bytes of the key's digest.

The captured outputs of a step (text and displays) are signed, too: after the rows of the outputs, the catalog contains a row of the kind
``signature`` with the signature of these rows. Outputs that are signed with this user's key are shown unchanged. All other outputs are
*sanitized*: text keeps its colours, but cannot move the cursor, set the title of a window or reverse the direction of writing; of a display,
only plain text and pixel images are shown, not HTML, SVG or JavaScript.
"""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.runs import CapturedOutput
from stepwell.kernel_runtime.store.catalog import tables
from stepwell.kernel_runtime.store.catalog.schema import materialization_row, output_rows
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.text import coloured

SIGNATURE_SIZE = 40
"""Number of bytes of a signature."""
_NAME = 8
"""Number of bytes of the name of a key."""
_KEYED = "stepwell 2026-11 digests that tell nothing without the user's key"
_WHOLE = 1 << 20
"""Total size in bytes below which joining the parts is faster than hashing them one by one."""


def key_path(named: str = "") -> Path:
    """Return the path of the user's key file: ``named``, or the default path if ``named`` is empty."""
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_config_dir("stepwell", appauthor=False)) / "key"


def key_name(signature: bytes | None) -> bytes:
    """Return the name of the key with which a signature claims to be made; empty if there is no signature. The signature is not verified.

    A file without a signature contains zeros in the place of the signature.
    """
    return signature[:_NAME] if signature and any(signature) else b""


def fingerprint(name: bytes) -> str:
    """Return the name of a key in readable form, for example ``3f2a-90b1-77c4-0d1e``."""
    text = name.hex()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


class Signer:
    """Signs and verifies data with this user's key.

    The path of the key file is fixed at construction. The file is read or created when the key is first needed, because many stores contain
    only values that need no signature.

    Raises
    ------
    StoreError
        If a method or property needs the key, but the key file can be neither read nor created, is too short, or is not private.
    """

    def __init__(self) -> None:
        self._named_path = os.environ.get("STEPWELL_KEY_FILE", "")
        self._key = b""
        self._name = b""
        self._keyed: Any = None

    def sign(self, parts: Iterable[bytes | memoryview]) -> bytes:
        """Return the signature of ``parts``, made with this user's key. The signature covers the contents of the parts and their lengths."""
        self._load()
        return self._name + self._mac(parts)

    def verify(self, signature: bytes | None, parts: Iterable[bytes | memoryview]) -> bool:
        """Return True if the signature was made with this user's key over exactly these parts."""
        if signature is None or len(signature) != SIGNATURE_SIZE:
            return False
        self._load()
        return signature[:_NAME] == self._name and hmac.compare_digest(signature[_NAME:], self._mac(parts))

    def keyed(self, data: bytes) -> str:
        """Return the keyed digest of ``data``, computed with this user's key, as 32 hexadecimal digits.

        Without the key, nobody can guess the data from the digest.
        """
        if self._keyed is None:
            self._load()
        digest: str = self._keyed(data).hexdigest(16)
        return digest

    @property
    def name(self) -> bytes:
        """The name of this user's key: the first eight bytes of every signature. A missing key file is created."""
        self._load()
        return self._name

    def _mac(self, parts: Iterable[bytes | memoryview]) -> bytes:
        blocks = list(parts)
        lengths = str([len(part) for part in blocks]).encode()
        if sum(map(len, blocks)) < _WHOLE:
            return hmac.digest(self._key, b"".join([lengths, *blocks]), "sha256")
        mac = hmac.new(self._key, lengths, "sha256")
        for part in blocks:
            mac.update(part)
        return mac.digest()

    def _load(self) -> None:
        if not self._key:
            self._key = _read_or_make(key_path(self._named_path))
            self._name = sha256(b"stepwell key\0" + self._key).digest()[:_NAME]
            from blake3 import blake3

            # An HMAC would release the GIL on each call, and a run computes thousands of small digests.
            self._keyed = partial(blake3, key=blake3(self._key, derive_key_context=_KEYED).digest())


def _read_or_make(path: Path) -> bytes:
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # The key is written to another file, which is then linked to `path`. So two processes that create a key at the same time use the same one.
            making = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
            descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, os.urandom(32))
            finally:
                os.close(descriptor)
            _place(making, path)
        with path.open("rb") as file:
            _check_privacy(path, os.fstat(file.fileno()))
            key = file.read()
    except OSError as error:
        raise StoreError(
            f"the key that signs stored values cannot be read or created: {path}",
            where=str(error),
            remedy="set the environment variable STEPWELL_KEY_FILE to the path of a file that you can write",
        ) from error
    if len(key) < 16:
        raise StoreError(
            f"the key that signs stored values is damaged: {path} has only {len(key)} bytes",
            remedy=f"remove {path}; Stepwell then creates a new key, and computes again the values that were signed with the old one",
        )
    return key


def _check_privacy(path: Path, status: os.stat_result) -> None:
    """Raise `StoreError` if users outside the group have any access to the key file, or the group can write to it.

    Anyone who has the key can sign code that Stepwell then executes. The group may read the file, so that its members can share the key.
    """
    if os.name != "posix":
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise StoreError(
            f"the key that signs stored values is not private: {path} has the mode {mode:04o}",
            remedy=f"run chmod 600 {path} (chmod 640 if a group shares the key); if others may have read the file, remove it, and Stepwell creates a new key",
        )


def _place(making: Path, path: Path) -> None:
    """Move the key file ``making`` to ``path``, unless another process has created ``path`` meanwhile; remove ``making``."""
    try:
        os.link(making, path)
    except FileExistsError:
        pass
    except OSError:
        # The file system has no hard links.
        if not path.exists():
            making.replace(path)
    making.unlink(missing_ok=True)


_SIGNATURE: Literal["signature"] = "signature"
_PIXELS = ("image/png", "image/jpeg", "image/gif", "image/webp")


def sealed(outputs: Sequence[CapturedOutput], signer: Signer) -> Sequence[CapturedOutput]:
    """Return the captured outputs of a step, followed by an output of the kind ``signature`` that contains their signature.

    Return ``outputs`` unchanged if it is empty, or if the user's key can be neither read nor created.
    """
    if not outputs:
        return outputs
    try:
        signature = signer.sign(_signed_parts(outputs))
    except StoreError:
        return outputs
    return (*outputs, CapturedOutput(_SIGNATURE, text=signature.hex()))


def read_outputs(catalog: Catalog, signer: Signer, run_id: str, step_key: str) -> tuple[CapturedOutput, ...]:
    """Read the captured outputs of a step of a run from the catalog, and return them for display.

    Outputs that are not signed with this user's key are returned without anything that could execute code or control the terminal.
    """
    return outputs_to_show(catalog.ask(tables.read_outputs, run_id, step_key), signer)


def outputs_to_show(outputs: Sequence[CapturedOutput], signer: Signer) -> tuple[CapturedOutput, ...]:
    """Return the captured outputs of a step for display, without the output of the kind ``signature``.

    If the omitted output contains a valid signature of the other outputs, made with this user's key, these outputs are unchanged. Otherwise they
    are sanitized (`_sanitized`).
    """
    shown_outputs = tuple(output for output in outputs if output.kind != _SIGNATURE)
    seals = [output.text for output in outputs if output.kind == _SIGNATURE]
    if not shown_outputs or (len(seals) == 1 and _is_signed(shown_outputs, seals[0], signer)):
        return shown_outputs
    return tuple(_sanitized(output) for output in shown_outputs)


def _is_signed(outputs: Sequence[CapturedOutput], seal: str, signer: Signer) -> bool:
    """Return True if ``seal`` is the hexadecimal form of a signature of ``outputs`` by this user's key."""
    try:
        return signer.verify(bytes.fromhex(seal), _signed_parts(outputs))
    except (ValueError, StoreError):
        return False


def _signed_parts(outputs: Sequence[CapturedOutput]) -> list[bytes]:
    """Return the bytes that the signature of captured outputs covers."""
    return [(text or "").encode("utf-8", "surrogatepass") for row in output_rows("", "outputs", outputs) for text in row[1:]]


def _sanitized(output: CapturedOutput) -> CapturedOutput:
    """Return a copy of an output with only its text and pixel images. Nothing in the copy can execute code or control the terminal."""
    data = {mime: value for mime, value in output.data.items() if mime in _PIXELS and isinstance(value, str)}
    plain = output.data.get("text/plain")
    if isinstance(plain, str):
        data["text/plain"] = coloured(plain)
    stream = output.stream if output.stream == "stderr" else "stdout"
    kind = output.kind if output.kind in {"stream", "display_data", "update_display_data", "clear_output"} else "stream"
    return replace(
        output,
        kind=kind,
        stream=stream if kind == "stream" else "",
        text=coloured(output.text or ""),
        data=data,
        metadata={},
    )


def sign_record(signer: Signer, item: Materialization) -> bytes:
    """Return the signature of the record of a materialization. The signature covers every field except ``record_signature``."""
    return signer.sign(_record_parts(item))


def vouches(signer: Signer, item: Materialization) -> bool:
    """Return True if the field ``record_signature`` of a materialization is a valid signature of its record by this user's key."""
    return signer.verify(item.record_signature, _record_parts(item))


def _record_parts(item: Materialization) -> tuple[bytes, ...]:
    """Return the bytes that the signature of a record covers: every column of its row except ``record_signature``."""
    row = materialization_row(replace(item, record_signature=None))
    return (b"record", repr(row).encode("utf-8", "backslashreplace"))
