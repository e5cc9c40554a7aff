"""The key ring: encryption of originals, and a check value of each key."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.exceptions import ConfigurationError

KEY_BYTES = 32
NONCE_BYTES = 12
ENVIRONMENT_VARIABLE = "DICOM_DEID_KEYS"

_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


def derive(key: bytes, purpose: str) -> bytes:
    """Return the 32-byte key for one purpose: HMAC-SHA-256 of the purpose, so that no key is used for two."""
    return hmac.digest(key, purpose.encode(), "sha256")


class Cipher:
    """AES-256-GCM under one key, with a random 96-bit nonce before each ciphertext (NIST SP 800-38D)."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, text: bytes, bound_to: bytes, nonce: bytes | None = None) -> bytes:
        """Encrypt `text`; decryption needs the same `bound_to`.

        `nonce`, when given, is 12 new random bytes that the caller drew in bulk.
        """
        nonce = nonce or os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text, bound_to)

    def decrypt(self, encrypted: bytes, bound_to: bytes) -> bytes:
        """Decrypt the result of :meth:`encrypt`.

        Raises
        ------
        ConfigurationError
            The key is another, or the bytes were changed.
        """
        try:
            return self._cipher.decrypt(encrypted[:NONCE_BYTES], encrypted[NONCE_BYTES:], bound_to)
        except InvalidTag:
            pass
        raise ConfigurationError(
            "A value cannot be decrypted: the key of its id is not the one that encrypted it, or the row was changed. "
            "Give the key ring that this schema was used with before; another one belongs to another schema."
        )


@dataclass(frozen=True)
class KeyRing:
    """The keys that protect the crosswalk, by id. The first one is active and encrypts; all of them decrypt.

    Parameters
    ----------
    keys
        32-byte keys by their ids, the active one first. They are never in the database; a row only names the id.

    Examples
    --------
    >>> ring = KeyRing.generate()
    >>> KeyRing.parse(ring.to_text()) == ring
    True
    """

    keys: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise ConfigurationError("The key ring is empty; make a key with `dicom-deid crosswalk new-key`.")
        for key_id, key in self.keys.items():
            if not _KEY_ID.fullmatch(key_id):
                raise ConfigurationError("A key id has letters, digits, '.', '_' and '-', at most 32 of them.")
            if len(key) != KEY_BYTES:
                raise ConfigurationError(f"Key {key_id!r} has {len(key)} bytes; a key has {KEY_BYTES}.")

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read ``id1:base64key,id2:base64key``; the first is active.

        Raises
        ------
        ConfigurationError
            An entry is not of that form, or a key has not 32 bytes. The message never holds a key.
        """
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            key_id, colon, encoded = entry.partition(":")
            key_id = key_id.strip()
            try:
                key = base64.b64decode(encoded.strip().replace("-", "+").replace("_", "/"), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not colon or not key:
                raise ConfigurationError(f"Entry {number} of the key ring is not of the form id:base64key.")
            if key_id in keys:
                raise ConfigurationError(f"Entry {number} of the key ring repeats an id.")
            keys[key_id] = key
        return cls(keys)

    @classmethod
    def generate(cls, key_id: str = "k1") -> KeyRing:
        """Make a ring of one new random key."""
        return cls({key_id: secrets.token_bytes(KEY_BYTES)})

    @classmethod
    def from_environment(cls) -> KeyRing:
        """Read the ring from ``DICOM_DEID_KEYS``.

        Raises
        ------
        ConfigurationError
            The variable is not set.
        """
        text = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if not text.strip():
            raise ConfigurationError(
                f"{ENVIRONMENT_VARIABLE} is not set. It holds the keys of the crosswalk as id:base64key,...; "
                "make one with `dicom-deid crosswalk new-key` and keep it safe: without it no pseudonym is found again."
            )
        return cls.parse(text)

    def to_text(self) -> str:
        """Write the ring as :meth:`parse` reads it. A secret."""
        return ",".join(f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in self.keys.items())

    @cached_property
    def active_id(self) -> str:
        """The id of the key that encrypts."""
        return next(iter(self.keys))

    def cipher(self, key_id: str, purpose: str) -> Cipher:
        """Return the cipher of one key for one purpose.

        Raises
        ------
        ConfigurationError
            The ring lacks the key.
        """
        if key_id not in self.keys:
            raise ConfigurationError(
                f"The key ring lacks key {key_id!r}, which encrypted rows; add it to the connection's keys."
            )
        return Cipher(derive(self.keys[key_id], purpose))


def check_keys(connection: DatabaseConnection, ring: KeyRing) -> None:
    """Compare each key of the ring with the check value of its id, where there is one.

    Raises
    ------
    ConfigurationError
        A key is not the one that was used under its id before.
    """
    rows = connection.query(
        "checking the keys", "SELECT key_id, check_value FROM key_check WHERE key_id = ANY (%s)", (list(ring.keys),)
    )
    for key_id, value in rows:
        if not hmac.compare_digest(bytes(value), _check_value(ring.keys[key_id])):
            raise ConfigurationError(
                f"Key {key_id!r} is not the key that this schema was used with under that id. Give the key ring "
                "that it was used with before; a new key needs an id of its own."
            )


def register_active_key(connection: DatabaseConnection, ring: KeyRing) -> None:
    """Store the check value of the key that encrypts, before the first row is encrypted with it.

    Raises
    ------
    ConfigurationError
        Another key was registered under the id, perhaps at the same moment.
    """
    connection.query(
        "registering the key",
        "INSERT INTO key_check (key_id, check_value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (ring.active_id, _check_value(ring.keys[ring.active_id])),
    )
    check_keys(connection, ring)


def _check_value(key: bytes) -> bytes:
    return derive(key, "check value")[:16]
