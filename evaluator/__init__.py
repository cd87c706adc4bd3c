"""What eval.py is made of: a judge that never imports the submission, and workers that run it.

The way of a case: `cases` -> `session` -> `judge`, which makes inputs and ground truth (`problem`) and lays
them out in shared memory (`arena`) -> `handle`, the judge's end of a worker process -> `worker`, `serving`,
`devices`: inside that process, the submission on the simulated B200 or a GPU -> back as fixed-format messages
(`channel`, `messages`) and raw bytes -> checks (`problem`) -> `results` -> `report`, `record` (JSON),
`official` (keys). Timing on a GPU: `measure` drives the windows of `cuda_window` by the rules of `timing`.
"""
