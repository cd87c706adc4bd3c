"""Makes `ptx_harness` importable from the tests below this folder."""
