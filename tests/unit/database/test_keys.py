"""The key ring, and what is done with keys."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.database.keys import Cipher, KeyRing, derive
from dicom_deid.exceptions import ConfigurationError

KEY = base64.b64encode(b"k" * 32).decode()


def test_the_first_key_is_active_and_text_comes_back():
    ring = KeyRing.parse(f" new:{KEY} , old:{base64.urlsafe_b64encode(bytes([255] * 32)).decode()}")
    assert ring.active_id == "new"
    assert list(ring.keys) == ["new", "old"]
    assert KeyRing.parse(ring.to_text()) == ring


@pytest.mark.parametrize(
    "text", ["", "k1", f"k1{KEY}", "k1:notbase64!", "k1:c2hvcnQ=", f"k1:{KEY},k1:{KEY}", f"k 1:{KEY}", f":{KEY}"]
)
def test_an_invalid_key_ring_is_refused_without_showing_it(text):
    with pytest.raises(ConfigurationError) as refusal:
        KeyRing.parse(text)
    assert KEY not in str(refusal.value)
    assert "c2hvcnQ" not in str(refusal.value)


def test_the_ring_never_shows_its_keys():
    ring = KeyRing.generate()
    assert ring.to_text().split(":")[1] not in repr(ring)
    assert repr(next(iter(ring.keys.values()))) not in repr(ring)


def test_the_environment(monkeypatch):
    monkeypatch.delenv("DICOM_DEID_KEYS", raising=False)
    with pytest.raises(ConfigurationError, match="DICOM_DEID_KEYS is not set"):
        KeyRing.from_environment()
    monkeypatch.setenv("DICOM_DEID_KEYS", f"a:{KEY}")
    assert KeyRing.from_environment().active_id == "a"


@given(text=st.binary(), bound=st.binary())
def test_what_is_encrypted_is_decrypted_in_its_own_row_only(text, bound):
    cipher = Cipher(b"k" * 32)
    encrypted = cipher.encrypt(text, bound)
    assert cipher.decrypt(encrypted, bound) == text
    assert cipher.encrypt(text, bound) != encrypted
    for key, other, changed in (
        (b"j" * 32, bound, encrypted),
        (b"k" * 32, bound + b"x", encrypted),
        (b"k" * 32, bound, encrypted[:-1] + bytes([encrypted[-1] ^ 1])),
    ):
        with pytest.raises(ConfigurationError, match="cannot be decrypted"):
            Cipher(key).decrypt(changed, other)


def test_keys_for_two_purposes_differ():
    assert derive(b"k" * 32, "a") != derive(b"k" * 32, "b")
