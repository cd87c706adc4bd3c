"""Makes the case modules importable from the tests of this folder."""
