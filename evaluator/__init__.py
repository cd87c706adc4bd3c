"""What eval.py is made of: a judge that never imports the submission, and workers that run it.

The way of a case: `cases` (and `held_out`) -> `session` -> `judge`, which makes inputs and ground truth
(`problem`) and lays them out in shared memory (`arena`) -> `handle`, the judge's end of a worker process ->
`worker`, isolated by `isolation` (`kernel_calls`), with `serving`, `serving_case`, `devices`, `clocks`,
`watch`: inside that process, the submission on a simulated GPU or a real one -> back as fixed-format messages
(`channel`, `messages`) and raw bytes -> checks (`problem`, `conduct`), a `probe` for results that were not
computed in their own call -> `verdict` with `reasons` -> `results` -> `report`, `record` (JSON), `official`
(keys).

Times on a GPU: `timed` has `measure` (official lane, rules in `timing`) and `strict` take them over
`windows`, `bounds` and `speed_limits` judge them, `intervals` says how sure they are, `gpu_log` what the GPU
was doing; `compare` sets two submissions against each other. `seeds` draws what nobody may foresee;
`defences` and `account` keep the list of what was on and off. docs/integrity.md says what all this is worth.
"""
