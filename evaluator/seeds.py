"""Seeds nobody can foresee, and that anyone can replay afterwards.

Every seed of a run is derived from one key by what it is for. The key is drawn from the operating system's
entropy when the run starts, exists in the judge alone, and is published in the report when the run is over;
`--seed` takes it back.
"""

from __future__ import annotations

import hashlib
import os
import random

_KEY_BYTES = 16


class Seeds:
    """The seeds of one run. No two purposes share one."""

    def __init__(self, key: bytes | None = None) -> None:
        self.replayed = key is not None
        self._key = os.urandom(_KEY_BYTES) if key is None else key

    @staticmethod
    def replay(text: str) -> Seeds:
        """The seeds of an earlier run by its published key; any other text is a key too."""
        try:
            return Seeds(bytes.fromhex(text))
        except ValueError:
            return Seeds(text.encode())

    def draw(self, *purpose: object) -> int:
        """A seed from 0 to 2**62 - 1 for this purpose: the same for the same words, else unrelated."""
        words = "\0".join(map(str, purpose)).encode()
        digest = hashlib.blake2b(words, key=self._key[:64], digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 2

    def choices(self, *purpose: object) -> random.Random:
        """A generator for the judge's own choices: window lengths, offsets, poison."""
        return random.Random(self.draw(*purpose))

    def publish(self) -> str:
        """The key. Only for after the run."""
        return self._key.hex()
